"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  document.querySelector("h1").textContent = document.title;

  // Charts. Single views fit their place; views in rows are given its width.
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map(), views = new Map();
  const choice = document.getElementById("round");
  const sized = (chart, room) => {
    const spec = structuredClone(chart.spec);
    const rows = spec.spec || (spec.encoding && spec.encoding.row);
    (spec.spec || spec).width = rows ? Math.max(room - (spec.spec ? 150 : 24), 120) : room;
    if (!rows) spec.autosize = { type: "fit-x", contains: "padding" };
    for (const param of spec.params || []) if (param.name === "round" && choice) param.value = Number(choice.value);
    if (room < 560) spec.config = { legend: { columns: 2 }, axisY: { labelLimit: 110 } };
    return spec;
  };
  const draw = async (key) => {
    const place = document.getElementById(key);
    const room = Math.max(Math.floor(place.clientWidth), 200);
    const look = `${room} ${dark.matches}`;
    if (!place || drawn.get(key) === look) return;
    drawn.set(key, look);
    const chart = data.charts[key];
    const config = data.themes[dark.matches ? "dark" : "light"];
    // Within the figure, whose role and name it would replace by its own.
    const inner = document.createElement("div");
    place.replaceChildren(inner);
    const { view } = await vegaEmbed(inner, sized(chart, room), { actions: false, renderer: chart.renderer, config });
    views.set(key, view);
    // The figure says what the picture shows: hundreds of marks would each be read out otherwise.
    for (const part of place.querySelectorAll("svg, canvas")) part.setAttribute("aria-hidden", "true");
  };
  const keys = Object.keys(data.charts);
  const drawAll = async () => { for (const key of keys) await draw(key); };
  let pending;
  const again = () => { clearTimeout(pending); pending = setTimeout(drawAll, 120); };
  dark.addEventListener("change", again);
  window.addEventListener("resize", again);
  drawAll().then(() => document.documentElement.setAttribute("data-drawn", String(keys.length)));

  // The round that is shown, and what its charts show in words.
  if (choice) choice.addEventListener("change", async () => {
    for (const [key, chart] of Object.entries(data.charts)) {
      const finding = chart.findings[choice.value], view = views.get(key);
      if (!Object.keys(chart.findings).length || !view) continue;
      document.getElementById(`finding-${key}`).textContent = finding || "This arm has no job in this round.";
      await view.signal("round", Number(choice.value)).runAsync();
    }
  });

  // The table: searched in full, shown by the page, as thousands of rows would make a browser slow.
  const head = document.querySelector("#table thead"), body = document.querySelector("#table tbody");
  const found = document.getElementById("found"), more = document.getElementById("more"), search = document.getElementById("search");
  const PAGE = 200;
  const number = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
  const show = (value) => value === null || value === undefined ? "" : typeof value === "number" ? number.format(value) : String(value);
  const texts = data.rows.map((row) => row.map(show).join("\u0001").toLowerCase());
  let order = data.rows.map((_, at) => at), shown = PAGE, sorted = { column: -1, up: true };
  const cell = (value) => {
    const td = document.createElement("td");
    td.textContent = show(value);
    if (typeof value === "number") td.className = "n";
    else if (td.textContent.length > 60) td.className = "long";
    return td;
  };
  const fill = () => {
    const rows = order.slice(0, shown).map((at) => {
      const tr = document.createElement("tr");
      tr.append(...data.rows[at].map(cell));
      return tr;
    });
    body.replaceChildren(...rows);
    more.hidden = order.length <= shown;
    const all = data.rows.length.toLocaleString("en"), some = order.length.toLocaleString("en");
    found.textContent = order.length === data.rows.length ? `${all} jobs` : `${some} of ${all} jobs`;
  };
  const arrange = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    order = data.rows.map((_, at) => at).filter((at) => words.every((word) => texts[at].includes(word)));
    const { column, up } = sorted;
    if (column >= 0) {
      order.sort((a, b) => {
        const x = data.rows[a][column], y = data.rows[b][column];
        if (x === null || y === null) return (x === null) - (y === null);
        const compared = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
        return up ? compared : -compared;
      });
    }
    shown = PAGE;
    fill();
  };
  const line = document.createElement("tr");
  data.columns.forEach((name, column) => {
    const th = document.createElement("th"), button = document.createElement("button");
    th.scope = "col";
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => {
      sorted = { column, up: sorted.column === column ? !sorted.up : true };
      for (const other of line.children) other.removeAttribute("aria-sort");
      th.setAttribute("aria-sort", sorted.up ? "ascending" : "descending");
      arrange();
    });
    th.append(button);
    line.append(th);
  });
  head.append(line);
  let typing;
  search.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(arrange, 80); });
  more.addEventListener("click", () => { shown += PAGE; fill(); });
  fill();
})();
