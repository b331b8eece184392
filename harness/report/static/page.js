// What a page can do beyond being read: choose, sort, find. The state is in the URL's fragment, and so is the section
// that a link of the page led to, as `at`: for "#memory" is as good as "#at=memory", and has nothing chosen.
"use strict";
(() => {
  const SIZES = { "µs": 1e-6, ms: 1e-3, s: 1, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40, x: 1, "%": 1 };
  const QUANTITY = /^([+-]?\d+(?:\.\d+)?)\s*(µs|ms|s|B|[KMGT]iB|x|%)?(?=$|[\s\[,，（])/;
  const KEYS = ["target", "workload", "metric"];
  const pick = document.getElementById("pick");
  const subjects = [...document.querySelectorAll("[data-target], [data-workload], [data-metric], .table tbody tr")];
  const tables = [...document.querySelectorAll("div.table")];
  const boxes = (key) => (pick ? [...pick.querySelectorAll("input")].filter((box) => box.name === key) : []);
  const memory = [...document.querySelectorAll("input[name=memory]")];
  const unsorted = new Map(tables.map((table) => [table, [...table.querySelectorAll("tbody tr")]]));
  let at = "";

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
    // Memory is shown of one kind at a time, which has to be one that is chosen.
    const kinds = memory.filter((each) => now.metric.has(`memory.${each.value}`));
    for (const each of memory) each.disabled = kinds.length > 0 && !kinds.includes(each);
    if (kinds.length && !kinds.some((each) => each.checked)) kinds[0].checked = true;
  }

  function find(table, text) {
    const plain = (told) => told.replace(/\s+/g, " ").trim().toLowerCase();
    const wanted = plain(text);
    for (const row of table.querySelectorAll("tbody tr")) {
      const found = plain([...row.cells].map((cell) => cell.textContent).join(" ")).includes(wanted);
      if (found) delete row.dataset.lost;
      else row.dataset.lost = "";
    }
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
    if (at && told.size) told.set("at", at);
    return told.size ? told.toString() : at;
  }

  function keep() {
    history.replaceState(null, "", `#${state()}`);
  }

  // What is not known is taken for not said, but for nothing at all ("target="), which is what state() makes of that.
  function choose(told) {
    for (const key of KEYS) {
      const said = told.getAll(key).filter((value) => value === "" || known[key].has(value));
      for (const box of boxes(key)) box.checked = !said.length || said.includes(box.value);
    }
    const which = memory.find((each) => each.value === told.get("memory")) ?? memory[0];
    if (which) which.checked = true;
  }

  function arrange(table, told) {
    const said = (key) => told.getAll(key).find((each) => each.startsWith(`${table.id} `))?.slice(table.id.length + 1);
    const input = table.querySelector("input[type=search]");
    const [sought, sorted] = [said("find") ?? "", said("sort")];
    if (input) {
      input.value = sought;
      find(table, sought);
    }
    if (sorted) {
      const [column, direction] = sorted.split(" ");
      sort(table, Number(column), direction === "descending" ? "descending" : "ascending");
    } else if (table.querySelector("th[aria-sort]")) {
      table.querySelector("th[aria-sort]").removeAttribute("aria-sort");
      table.querySelector("tbody").append(...unsorted.get(table));
    }
    const folded = table.closest("details");
    if (folded && (sought || sorted)) folded.open = true;
  }

  function restore() {
    const fragment = location.hash.slice(1);
    const told = new URLSearchParams(fragment.includes("=") ? fragment : { at: fragment });
    at = document.getElementById(told.get("at")) ? told.get("at") : "";
    choose(told);
    for (const table of tables) arrange(table, told);
    show();
  }

  function lead() {
    const place = at && document.getElementById(at);
    if (!place) return;
    place.scrollIntoView();
    place.tabIndex = -1;
    place.focus({ preventScroll: true });
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
    if (input) input.addEventListener("input", () => { find(table, input.value); show(); keep(); });
  }
  for (const each of document.querySelectorAll(".tools, .downloads, #pick")) each.hidden = false;
  for (const link of document.querySelectorAll('a[href^="#"]')) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      at = link.hash.slice(1);
      history.pushState(null, "", `#${state()}`);
      lead();
    });
  }
  if (pick) {
    pick.addEventListener("change", () => { show(); keep(); });
    pick.addEventListener("submit", (event) => event.preventDefault());
  }
  for (const each of memory) each.addEventListener("change", keep);
  addEventListener("hashchange", () => { restore(); lead(); });
  // A browser that comes back to a page may put its boxes as they were, after all of this.
  addEventListener("pageshow", restore);
  restore();
  lead();
})();
