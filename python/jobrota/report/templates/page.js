"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);

  // Links within the page. In the frame of a notebook, the browser would load the notebook itself.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (!link || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const target = document.getElementById(link.getAttribute("href").slice(1));
    if (!target) return;
    target.tabIndex = -1;
    target.scrollIntoView();
    target.focus({ preventScroll: true });
  });

  // The frame of a notebook gets the height of the page, if the notebook allows it.
  const fit = () => {
    try {
      const frame = window.frameElement;
      if (frame) frame.style.height = `${Math.ceil(document.body.getBoundingClientRect().height) + 1}px`;
    } catch { /* The frame is on another site. */ }
  };
  new ResizeObserver(() => requestAnimationFrame(fit)).observe(document.body);

  // Charts. Single views adapt to their container; views in rows need its width.
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const drawn = new Map(), views = new Map();
  const choice = document.getElementById("round");
  const sized = (chart, room, less) => {
    const spec = structuredClone(chart.spec);
    const rows = Boolean(spec.spec), inner = spec.spec || spec;
    inner.width = Math.max(room - less - (rows ? 24 : 0), 120);
    if (!rows) spec.autosize = { type: "fit-x", contains: "padding" };
    // The names beside the lines of a timeline need space.
    else if (room < 700 && inner.encoding) inner.encoding.y.axis = null;
    for (const param of spec.params || []) if (param.name === "round" && choice) param.value = Number(choice.value);
    if (room < 560) spec.config = { legend: { columns: 1 }, axisX: { labelFontSize: 10 }, axisY: { labelLimit: 120 } };
    return spec;
  };
  const excess = (place, room) => {
    const picture = place.querySelector("svg, canvas");
    return picture ? Math.ceil(picture.getBoundingClientRect().width) - room : 0;
  };
  const pick = (key) => (_, item) => {
    const tooltip = item && item.tooltip;
    const parts = tooltip && typeof tooltip === "object" ? Object.entries(tooltip).map(([name, value]) => `${name}: ${value}`) : [];
    document.getElementById(`picked-${key}`).textContent = parts.join(", ");
  };
  const embed = async (key, place, room) => {
    const chart = data.charts[key];
    const config = data.themes[dark.matches ? "dark" : "light"];
    let less = 0;
    // The width of names is unknown before they are drawn: a chart that is too wide or too narrow is drawn again.
    for (let tries = 0; tries < 3; tries++) {
      // In an inner element, because Vega replaces role and name of its container.
      const inner = document.createElement("div");
      if (views.has(key)) views.get(key).finalize();
      place.replaceChildren(inner);
      const { view } = await vegaEmbed(inner, sized(chart, room, less), { actions: false, renderer: chart.renderer, config });
      views.set(key, view);
      view.addEventListener("click", pick(key));
      const over = excess(place, room);
      if (over <= 0 && over > -40) break;
      less += over;
    }
    // The caption has the finding. A screen reader would read hundreds of marks otherwise.
    for (const part of place.querySelectorAll("svg, canvas")) part.setAttribute("aria-hidden", "true");
  };
  const draw = async (key) => {
    const place = document.getElementById(key);
    const room = Math.max(Math.floor(place.clientWidth), 200);
    const look = `${room} ${dark.matches}`;
    if (drawn.get(key) === look) return;
    drawn.set(key, look);
    try {
      await embed(key, place, room);
    } catch (error) {
      // The other charts are still drawn.
      place.textContent = `This chart could not be drawn (${error.message}); its table has the same.`;
    }
  };
  const keys = Object.keys(data.charts);
  const drawAll = async () => { for (const key of keys) await draw(key); };
  let pending;
  const again = () => { clearTimeout(pending); pending = setTimeout(drawAll, 120); };
  dark.addEventListener("change", again);
  window.addEventListener("resize", again);
  drawAll().finally(() => document.documentElement.setAttribute("data-drawn", String(keys.length)));

  // The round that is shown, and what its charts show in words.
  if (choice) choice.addEventListener("change", async () => {
    for (const [key, chart] of Object.entries(data.charts)) {
      const finding = chart.findings[choice.value], view = views.get(key);
      if (!Object.keys(chart.findings).length || !view) continue;
      document.getElementById(`finding-${key}`).textContent = finding || "This arm has no job in this round.";
      document.getElementById(`picked-${key}`).textContent = "";
      await view.signal("round", Number(choice.value)).runAsync();
      const place = document.getElementById(key);
      if (excess(place, Math.max(Math.floor(place.clientWidth), 200)) > 0) {
        drawn.delete(key);
        await draw(key);
      }
    }
  });

  // The table: searched in full, shown by the page, as thousands of rows would make a browser slow.
  const head = document.querySelector("#table thead"), body = document.querySelector("#table tbody");
  const found = document.getElementById("found"), more = document.getElementById("more"), search = document.getElementById("search");
  const PAGE = 200;
  const number = new Intl.NumberFormat("en", { maximumFractionDigits: 3 });
  const show = (value) => value === null || value === undefined ? "" : typeof value === "number" ? number.format(value) : String(value);
  // Numbers are found with and without their thousands separators.
  const sought = (value) => typeof value === "number" ? `${show(value)} ${value}` : show(value);
  const texts = data.rows.map((row) => row.map(sought).join("\u0001").toLowerCase());
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
    if (!rows.length) {
      const tr = document.createElement("tr"), td = cell("No job has all of these words.");
      td.colSpan = data.columns.length;
      tr.append(td);
      rows.push(tr);
    }
    body.replaceChildren(...rows);
    more.hidden = order.length <= shown;
    document.getElementById("shown").textContent = more.hidden ? "" : `${number.format(shown)} of ${number.format(order.length)} shown`;
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
  more.addEventListener("click", () => {
    const next = shown;
    shown += PAGE;
    fill();
    // Move the keyboard focus to the first new row.
    const row = body.rows[next];
    row.tabIndex = -1;
    row.focus();
  });
  // Print shows all rows.
  let before = shown;
  window.addEventListener("beforeprint", () => { before = shown; shown = order.length; fill(); });
  window.addEventListener("afterprint", () => { shown = before; fill(); });
  fill();
})();
