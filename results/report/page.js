// Draws the charts and makes the page's few controls work. No name of a configuration becomes
// markup here: text goes through textContent, data through Vega.
"use strict";
(() => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const toggles = [...document.querySelectorAll("#toggles input")];
  const names = toggles.map((box) => box.parentElement.querySelector(".name").textContent);
  const views = new Map();
  const say = (text) => { document.getElementById("said").textContent = text; };

  // Column by column back to rows; words are stored once.
  function rowsOf(columns) {
    const fields = Object.keys(columns);
    const read = fields.map((field) => {
      const column = columns[field];
      return Array.isArray(column)
        ? (i) => column[i]
        : (i) => (column.codes[i] === null ? null : column.words[column.codes[i]]);
    });
    const first = fields.length ? columns[fields[0]] : [];
    const count = (Array.isArray(first) ? first : first.codes).length;
    return Array.from({ length: count }, (_, i) =>
      Object.fromEntries(fields.map((field, f) => [field, read[f](i)])));
  }

  const shown = () => names.filter((_, i) => toggles[i].checked);

  async function draw(box) {
    const name = box.dataset.chart;
    const chart = charts[name];
    const datasets = {};
    for (const [table, columns] of Object.entries(chart.tables)) datasets[table] = rowsOf(columns);
    const result = await vegaEmbed(box, { ...chart.spec, datasets }, {
      renderer: "svg", actions: false, ast: true, tooltip: { theme: "custom" },
    });
    views.set(name, result.view);
    if (chart.zoom) linkZoom(name, result.view);
    box.dataset.ready = "yes";
  }

  // Charts over the same time move together.
  const panelOf = (name) => name.slice(name.lastIndexOf("-"));
  let linking = false;
  function linkZoom(name, view) {
    view.addSignalListener("zoom_second", (_, range) => {
      if (linking || name.startsWith("latency")) return;
      linking = true;
      for (const [other, itsView] of views) {
        const linked = charts[other].zoom && other !== name && !other.startsWith("latency");
        if (linked && panelOf(other) === panelOf(name)) setZoom(itsView, range);
      }
      linking = false;
    });
  }
  function setZoom(view, range) {
    view.signal("zoom_second", range).runAsync();
  }

  function zoom(name, how) {
    const view = views.get(name);
    if (how === "reset") return setZoom(view, null);
    const [low, high] = view.signal("zoom_second") || view.scale("x").domain();
    const middle = (low + high) / 2, half = (high - low) / 2;
    const move = { left: -half / 2, right: half / 2 }[how] || 0;
    const size = half * ({ in: 0.5, out: 2 }[how] || 1);
    return setZoom(view, [middle + move - size, middle + move + size]);
  }

  // The SVG with its colours filled in, to use elsewhere.
  function save(name) {
    const svg = document.querySelector(`[data-chart="${CSS.escape(name)}"] svg`);
    const style = getComputedStyle(document.documentElement);
    const fill = (text) =>
      text.replace(/var\((--[\w-]+)\)/g, (_, variable) => style.getPropertyValue(variable).trim());
    const blob = new Blob([fill(new XMLSerializer().serializeToString(svg))],
      { type: "image/svg+xml" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${name}.svg`;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  async function copy(button) {
    const text = button.closest(".query").querySelector("pre").textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // A file opened from disk may have no clipboard: the old way still works.
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    button.textContent = "Copied";
    say("The query was copied");
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }

  function showConfigurations() {
    const now = shown();
    for (const view of views.values()) view.signal("shown", now).runAsync();
    for (const box of document.querySelectorAll("[data-only]")) {
      box.hidden = !now.includes(box.dataset.only);
    }
    say(`shown: ${now.join(", ") || "none"}`);
  }

  function currentTheme() {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    return document.documentElement.dataset.theme || (dark ? "dark" : "light");
  }
  function labelTheme() {
    const button = document.getElementById("theme");
    button.setAttribute("aria-pressed", String(currentTheme() === "dark"));
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.id === "theme") {
      document.documentElement.dataset.theme = currentTheme() === "dark" ? "light" : "dark";
      labelTheme();
    }
    if ("copy" in button.dataset) copy(button);
    if (button.dataset.save) save(button.dataset.save);
    if (button.dataset.zoom) {
      zoom(button.closest(".chart-box").querySelector(".chart").dataset.chart, button.dataset.zoom);
    }
  });
  for (const box of toggles) box.addEventListener("change", showConfigurations);

  // On paper nothing can be unfolded: tables are, SQL stays folded.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")]
      .filter((one) => one.querySelector("table"));
    for (const one of opened) one.open = true;
  });
  addEventListener("afterprint", () => { for (const one of opened) one.open = false; });

  labelTheme();
  Promise.all([...document.querySelectorAll("[data-chart]")].map(draw))
    .then(() => { document.documentElement.dataset.charts = "ready"; });
})();
