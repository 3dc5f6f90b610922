// Small comforts; every page works without them. Nothing from the archive becomes markup here: the
// server's own escaped parts take the place of older ones, and they can hold no script.
"use strict";
(() => {
  // A run that goes on: ask again every second, while somebody looks.
  const live = document.getElementById("live");
  const POLL_MS = 1000, RETRY_MS = 3000;
  let tag = "";

  function replaceParts(text) {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    for (const part of fresh.querySelectorAll("[data-part]")) {
      const old = live.querySelector(`[data-part="${part.dataset.part}"]`);
      if (old && old.innerHTML !== part.innerHTML) old.replaceChildren(...part.childNodes);
    }
  }

  async function poll() {
    const said = document.getElementById("said");
    let wait = POLL_MS;
    if (!document.hidden) {
      try {
        const answer = await fetch(live.dataset.poll, {
          cache: "no-store", headers: tag ? { "If-None-Match": tag } : {},
        });
        if (answer.status === 200) {
          tag = answer.headers.get("ETag") || "";
          replaceParts(await answer.text());
        }
        said.textContent = answer.ok || answer.status === 304 ? "" : "This page can't be brought up to date; load it again.";
        if (answer.headers.get("Heapgate-Running") === "no") return;
      } catch {
        said.textContent = "bench serve does not answer any more; what is above may be old.";
        wait = RETRY_MS;
      }
    }
    setTimeout(poll, wait);
  }
  if (live && live.dataset.running === "yes") setTimeout(poll, POLL_MS);

  // The list: compare as soon as something is chosen.
  const choose = document.getElementById("choose");
  function count() {
    const chosen = choose.querySelectorAll("input[name=run]:checked").length;
    const button = choose.querySelector("[data-compare]");
    button.disabled = chosen === 0;
    button.textContent = chosen < 2 ? "Compare chosen" : `Compare ${chosen} runs`;
  }
  if (choose) {
    choose.addEventListener("change", count);
    addEventListener("pageshow", count);
    count();
  }

  // The box for SQL: Ctrl+Enter asks, and it grows with the query.
  const query = document.getElementById("query");
  if (query) {
    query.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        query.form.requestSubmit();
      }
    });
    query.form.addEventListener("submit", (event) => {
      if (!event.submitter || !event.submitter.hasAttribute("formaction")) {
        document.body.classList.add("asking");
      }
    });
  }

  // The report is drawn: nothing has to be said any more.
  const frame = document.querySelector("iframe");
  if (frame) {
    const drawn = () => frame.closest("main").classList.add("drawn");
    frame.addEventListener("load", drawn);
  }
})();
