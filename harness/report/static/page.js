// What a page can do beyond being read: choose, sort, find, save a chart. The state is in the URL's fragment.
"use strict";
(() => {
  const SIZES = { "µs": 1e-6, ms: 1e-3, s: 1, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40, x: 1, "%": 1 };
  const QUANTITY = /^([+-]?\d+(?:\.\d+)?)\s*(µs|ms|s|B|[KMGT]iB|x|%)?(?=$|[\s\[,])/;
  const KEYS = ["target", "workload", "metric"];
  const pick = document.getElementById("pick");
  const subjects = [...document.querySelectorAll("[data-target], [data-workload], [data-metric], .table tbody tr")];
  const tables = [...document.querySelectorAll("div.table")];
  const boxes = (key) => (pick ? [...pick.querySelectorAll("input")].filter((box) => box.name === key) : []);
  const memory = [...document.querySelectorAll("input[name=memory]")];

  const chosen = () => Object.fromEntries(
    KEYS.map((key) => [key, new Set(boxes(key).filter((box) => box.checked).map((box) => box.value))]));
  const known = Object.fromEntries(KEYS.map((key) => [key, new Set(boxes(key).map((box) => box.value))]));

  function show() {
    const now = chosen();
    for (const subject of subjects) {
      const out = KEYS.some((key) => {
        const value = subject.dataset[key];
        return value !== undefined && known[key].has(value) && !now[key].has(value);
      });
      const hidden = out || subject.dataset.lost !== undefined;
      if (subject instanceof SVGElement) subject.style.display = hidden ? "none" : "";
      else subject.hidden = hidden;
    }
  }

  function find(table, text) {
    const wanted = text.trim().toLowerCase();
    for (const row of table.querySelectorAll("tbody tr")) {
      const found = row.textContent.toLowerCase().includes(wanted);
      if (found) delete row.dataset.lost;
      else row.dataset.lost = "";
    }
    show();
  }

  function amount(text) {
    const found = QUANTITY.exec(text.trim());
    return found ? Number(found[1]) * (SIZES[found[2]] ?? 1) : NaN;
  }

  function order(one, other) {
    const [a, b] = [amount(one), amount(other)];
    if (Number.isNaN(a) && Number.isNaN(b)) return one.localeCompare(other, undefined, { numeric: true });
    if (Number.isNaN(a)) return 1;
    return Number.isNaN(b) ? -1 : a - b;
  }

  function sort(table, column, direction) {
    const heads = [...table.querySelectorAll("thead th")];
    if (!heads[column]) return;
    heads.forEach((head, at) => at === column ? head.setAttribute("aria-sort", direction) : head.removeAttribute("aria-sort"));
    const body = table.querySelector("tbody");
    const rows = [...body.rows].map((row) => [row.cells[column]?.textContent ?? "", row]);
    const sign = direction === "descending" ? -1 : 1;
    rows.sort(([a], [b]) => {
      const none = Number(a.startsWith("—")) - Number(b.startsWith("—"));
      return none || sign * order(a, b);
    });
    body.append(...rows.map(([, row]) => row));
  }

  function state() {
    const told = new URLSearchParams();
    for (const key of KEYS) {
      const all = boxes(key);
      const on = all.filter((box) => box.checked);
      if (on.length === all.length) continue;
      if (!on.length) told.append(key, "");
      for (const box of on) told.append(key, box.value);
    }
    const which = memory.find((each) => each.checked);
    if (which && which !== memory[0]) told.set("memory", which.value);
    for (const table of tables) {
      const input = table.querySelector("input[type=search]");
      if (input && input.value) told.append("find", `${table.id} ${input.value}`);
      const sorted = table.querySelector("th[aria-sort]");
      if (sorted) told.append("sort", `${table.id} ${sorted.cellIndex} ${sorted.getAttribute("aria-sort")}`);
    }
    return told.toString();
  }

  function keep() {
    history.replaceState(null, "", `#${state()}`);
  }

  function restore() {
    const fragment = location.hash.slice(1);
    if (!fragment.includes("=")) return;
    const told = new URLSearchParams(fragment);
    for (const key of KEYS) {
      const on = new Set(told.getAll(key));
      for (const box of boxes(key)) box.checked = !told.has(key) || on.has(box.value);
    }
    for (const each of memory) each.checked = each.value === (told.get("memory") ?? memory[0].value);
    for (const table of tables) {
      const input = table.querySelector("input[type=search]");
      const sought = told.getAll("find").find((each) => each.startsWith(`${table.id} `));
      if (input) {
        input.value = sought ? sought.slice(table.id.length + 1) : "";
        find(table, input.value);
      }
      const sorted = told.getAll("sort").find((each) => each.startsWith(`${table.id} `));
      if (sorted) {
        const [, column, direction] = sorted.split(" ");
        sort(table, Number(column), direction === "descending" ? "descending" : "ascending");
      }
    }
    show();
  }

  // A chart as a drawing of its own: what is shown of it now, with the colours that it has now.
  const SVG = "http://www.w3.org/2000/svg";
  const LOOK = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "font-size", "font-family"];
  const WIDTH = 900, LEFT = 250, RIGHT = 210, PAD = 16;

  function element(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function copied(drawing, x, y, width) {
    const copy = drawing.cloneNode(true);
    const [from, to] = [drawing, copy].map((each) => [...each.querySelectorAll("*")]);
    from.forEach((original, at) => {
      const style = getComputedStyle(original);
      if (style.display === "none") { to[at].setAttribute("display", "none"); return; }
      if (original instanceof SVGGeometryElement || original instanceof SVGTextElement) {
        for (const name of LOOK) to[at].setAttribute(name, style.getPropertyValue(name).replace(/url\("(?:[^"]*)#/, 'url("#'));
      }
      to[at].removeAttribute("style");
    });
    for (const [key, value] of Object.entries({ x, y, width })) copy.setAttribute(key, value);
    copy.setAttribute("overflow", "visible");
    return copy;
  }

  function clipped(text, most) {
    const told = text.replace(/\s+/g, " ").trim();
    return told.length > most ? `${told.slice(0, most - 1)}…` : told;
  }

  function drawing(figure) {
    const [ink, quiet, paper] = ["--ink", "--quiet", "--paper"].map(
      (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim());
    const font = { "font-family": "sans-serif", fill: ink };
    const picture = element("svg", { xmlns: SVG, width: WIDTH });
    const page = element("rect", { width: "100%", height: "100%", fill: paper });
    picture.append(page, document.querySelector("#patterns defs").cloneNode(true));
    const caption = figure.querySelector("figcaption");
    const title = `${caption.querySelector("b").textContent} · ${caption.querySelector(".workload").textContent}`;
    picture.append(element("text", { ...font, x: PAD, y: 28, "font-size": 16, "font-weight": "bold" }, clipped(title, 100)));
    picture.append(element("text", { ...font, x: PAD, y: 46, "font-size": 11, fill: quiet },
      clipped(caption.querySelector(".scale").textContent, 150)));
    let y = 64;
    for (const row of figure.querySelectorAll("li.line:not([hidden])")) {
      const image = row.querySelector(":scope > svg");
      const height = image ? Number(image.getAttribute("height")) : 16;
      const [name, value] = [row.querySelector(".name"), row.querySelector(".value")];
      const small = row.querySelector(".ran");
      picture.append(element("text", { ...font, x: PAD, y: y + 14, "font-size": 12, "font-weight": "bold" }, clipped(name.textContent, 34)));
      if (small) picture.append(element("text", { ...font, x: PAD, y: y + 28, "font-size": 9, fill: quiet }, clipped(small.textContent, 52)));
      if (image) picture.append(copied(image, LEFT, y, WIDTH - LEFT - RIGHT));
      picture.append(element("text", { ...font, x: WIDTH - RIGHT + 12, y: y + 14, "font-size": 11 }, clipped(value.textContent, 42)));
      y += Math.max(height, small ? 32 : 18) + 8;
      const pieces = row.querySelector(".pieces");
      if (pieces) {
        let x = LEFT;
        for (const piece of pieces.querySelectorAll("li")) {
          const told = clipped(piece.textContent, 60);
          if (x > LEFT && x + told.length * 5.2 > WIDTH - PAD) { x = LEFT; y += 14; }
          picture.append(copied(piece.querySelector("svg"), x, y - 4, 9));
          picture.append(element("text", { ...font, x: x + 13, y: y + 5, "font-size": 9, fill: quiet }, told));
          x += told.length * 5.2 + 24;
        }
        y += 20;
      }
    }
    const axis = figure.querySelector("svg.axis");
    if (axis) { picture.append(copied(axis, LEFT, y, WIDTH - LEFT - RIGHT)); y += 26; }
    const curves = figure.querySelector("svg.curves");
    if (curves) {
      picture.append(copied(curves, PAD, y, WIDTH - 2 * PAD));
      y += Number(curves.getAttribute("height")) + 16;
      for (const row of figure.querySelectorAll("tbody tr:not([hidden])")) {
        picture.append(copied(row.querySelector("svg"), PAD, y, 26));
        const told = [...row.cells].map((cell) => clipped(cell.textContent, 60)).join("   ");
        picture.append(element("text", { ...font, x: PAD + 34, y: y + 9, "font-size": 11 }, clipped(told, 130)));
        y += 18;
      }
    }
    picture.setAttribute("height", y + PAD);
    picture.setAttribute("viewBox", `0 0 ${WIDTH} ${y + PAD}`);
    return picture;
  }

  function save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  async function download(figure, kind) {
    const picture = drawing(figure);
    const vector = new Blob([new XMLSerializer().serializeToString(picture)], { type: "image/svg+xml" });
    if (kind === "svg") { save(vector, `${figure.id}.svg`); return; }
    const image = new Image();
    image.src = URL.createObjectURL(vector);
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = 2 * WIDTH;
    canvas.height = 2 * Number(picture.getAttribute("height"));
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    URL.revokeObjectURL(image.src);
    canvas.toBlob((blob) => save(blob, `${figure.id}.png`), "image/png");
  }

  for (const table of tables) {
    table.querySelectorAll("thead th").forEach((head, column) => {
      if (!head.textContent) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        sort(table, column, head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");
        keep();
      });
    });
    const input = table.querySelector("input[type=search]");
    if (input) input.addEventListener("input", () => { find(table, input.value); keep(); });
  }
  for (const each of document.querySelectorAll(".tools, .downloads, #pick")) each.hidden = false;
  for (const button of document.querySelectorAll("[data-save]")) {
    button.addEventListener("click", () => download(button.closest("figure"), button.dataset.save));
  }
  if (pick) {
    pick.addEventListener("change", () => { show(); keep(); });
    pick.addEventListener("submit", (event) => event.preventDefault());
  }
  for (const each of memory) each.addEventListener("change", keep);
  addEventListener("hashchange", restore);
  restore();
})();
