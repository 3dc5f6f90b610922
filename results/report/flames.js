// Profiles: a frame under the pointer or in focus is told and marked in all pictures of its figure;
// choosing it shows it and what it calls at full width, at one scale in all of them.
"use strict";
(() => {
  const framesOf = (one) => [...one.querySelectorAll(".frame")];
  const spanOf = (frame) => {
    frame.span ??= { left: parseFloat(frame.style.left), width: parseFloat(frame.style.width) };
    return frame.span;
  };
  const row = (frame) => Number(frame.dataset.row);

  function tell(figure, frame) {
    figure.querySelector(".flame-told").textContent = frame.getAttribute("aria-label");
    for (const other of framesOf(figure)) {
      other.classList.toggle("same", other.dataset.path === frame.dataset.path);
    }
  }

  function zoom(figure, path) {
    const pictures = [...figure.querySelectorAll(".flame")].map((picture) => {
      const frames = framesOf(picture);
      return { frames, chosen: frames.find((frame) => frame.dataset.path === path) };
    });
    const widths = pictures.map(({ chosen }) => (chosen ? spanOf(chosen).width : 0));
    const whole = path === "0" ? 100 : Math.max(...widths);
    for (const { frames, chosen } of pictures) place(frames, chosen, whole);
  }

  function place(frames, chosen, whole) {
    const middle = chosen && spanOf(chosen).left + spanOf(chosen).width / 2;
    const from = chosen ? spanOf(chosen).left : 0;
    for (const frame of frames) {
      const { left, width } = spanOf(frame);
      const above = chosen && row(frame) <= row(chosen) && left <= middle && middle <= left + width;
      const below = chosen && row(frame) > row(chosen) && left >= from - 1e-6 &&
        left + width <= from + spanOf(chosen).width + 1e-2;
      frame.hidden = !above && !below;
      const shown = above ? { left: from, width: spanOf(chosen).width } : { left, width };
      frame.style.left = `${((shown.left - from) / whole) * 100}%`;
      frame.style.width = `${(shown.width / whole) * 100}%`;
    }
  }

  // Up to the caller, down to its first call, left and right to its neighbours.
  function neighbour(frame, key) {
    const shown = framesOf(frame.parentElement).filter((one) => !one.hidden);
    const left = (one) => parseFloat(one.style.left);
    const right = (one) => left(one) + parseFloat(one.style.width);
    if (key === "ArrowUp" || key === "ArrowDown") {
      const wanted = row(frame) + (key === "ArrowUp" ? -1 : 1);
      return shown.find((one) => row(one) === wanted && (key === "ArrowUp"
        ? left(one) <= left(frame) + 1e-6 && right(one) >= right(frame) - 1e-2
        : left(one) >= left(frame) - 1e-6 && right(one) <= right(frame) + 1e-2));
    }
    const beside = shown.filter((one) => row(one) === row(frame));
    return beside[beside.indexOf(frame) + (key === "ArrowLeft" ? -1 : 1)];
  }

  function move(to) {
    for (const one of framesOf(to.parentElement)) one.tabIndex = one === to ? 0 : -1;
    to.focus();
  }

  for (const figure of document.querySelectorAll(".flames")) {
    const frameOf = (event) => event.target.closest(".frame");
    const reset = () => {
      zoom(figure, "0");
      const first = figure.querySelector(".frame");
      tell(figure, first);
      return first;
    };
    figure.addEventListener("pointerover", (event) => {
      if (frameOf(event)) tell(figure, frameOf(event));
    });
    figure.addEventListener("focusin", (event) => {
      if (frameOf(event)) tell(figure, frameOf(event));
    });
    figure.addEventListener("click", (event) => {
      if (event.target.closest("[data-flame-reset]")) reset();
      else if (frameOf(event)) {
        zoom(figure, frameOf(event).dataset.path);
        move(frameOf(event));
      }
    });
    figure.addEventListener("keydown", (event) => {
      const frame = frameOf(event);
      if (!frame) return;
      const beside = event.key.startsWith("Arrow") && neighbour(frame, event.key);
      if (beside) move(beside);
      else if (event.key === "Enter" || event.key === " ") zoom(figure, frame.dataset.path);
      else if (event.key === "Escape") move(reset());
      else if (!event.key.startsWith("Arrow")) return;
      event.preventDefault();
    });
  }
})();
