// A chart as a drawing of its own: what is shown of it now, with the colours that it has now, as SVG or PNG.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const LOOK = ["fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "vector-effect", "paint-order",
    "font-size", "font-family"];
  const WIDTH = 900, PAD = 16, ROOM = WIDTH - 2 * PAD;
  const FONT = "sans-serif", LINES = 4, LONGEST = 600;
  const pen = document.createElement("canvas").getContext("2d");

  function element(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const plain = (node) => node.textContent.replace(/\s+/g, " ").trim();

  function width(text, size, weight = "normal") {
    pen.font = `${weight} ${size}px ${FONT}`;
    return pen.measureText(text).width;
  }

  // A text as lines that are no wider than `room`; of a very long one LINES of them, as on the page.
  function wrapped(text, room, size, weight) {
    const lines = [];
    let left = [...text].slice(0, LONGEST);
    while (left.length && lines.length < LINES) {
      let end = left.length;
      while (end > 1 && width(left.slice(0, end).join(""), size, weight) > room) end -= 1;
      const space = end < left.length ? left.lastIndexOf(" ", end) : -1;
      if (space > end / 2) end = space;
      lines.push(left.slice(0, end).join("").trim());
      left = left.slice(end);
    }
    if (left.length) lines[LINES - 1] = `${lines[LINES - 1].slice(0, -2)}…`;
    return lines;
  }

  // Something that is filled from its top to its bottom; `y` is how far it is.
  class Sheet {
    constructor() {
      const style = getComputedStyle(document.documentElement);
      [this.ink, this.quiet, this.paper] = ["--ink", "--quiet", "--paper"].map((name) => style.getPropertyValue(name).trim());
      this.picture = element("svg", { xmlns: SVG, width: WIDTH });
      const page = element("rect", { width: "100%", height: "100%", fill: this.paper });
      this.picture.append(page, document.querySelector("#patterns defs").cloneNode(true));
      this.y = PAD;
    }

    // Writes at the height of `y`, and returns how high what it wrote is.
    text(told, { x = PAD, room = ROOM, size = 11, fill = this.ink, weight = "normal", anchor = "start" } = {}) {
      const lines = wrapped(told, room, size, weight);
      const look = { "font-family": FONT, "font-size": size, "font-weight": weight, fill, "text-anchor": anchor };
      lines.forEach((line, at) => {
        this.picture.append(element("text", { ...look, x, y: this.y + size * (1 + 1.3 * at) }, line));
      });
      return lines.length * 1.3 * size;
    }

    drawing(original, x = PAD, room = ROOM) {
      this.picture.append(copied(original, x, this.y, room));
      return Number(original.getAttribute("height"));
    }

    done() {
      const height = Math.ceil(this.y + PAD);
      this.picture.setAttribute("height", height);
      this.picture.setAttribute("viewBox", `0 0 ${WIDTH} ${height}`);
      return this.picture;
    }
  }

  function copied(drawing, x, y, room) {
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
    for (const [key, value] of Object.entries({ x, y, width: room })) copy.setAttribute(key, value);
    copy.setAttribute("overflow", "visible");
    return copy;
  }

  // A target: its name on the left and its number on the right, below each other where they have no room beside it.
  function row(sheet, line) {
    const [name, value] = [".name", ".value"].map((part) => plain(line.querySelector(part)));
    const number = width(value, 11);
    const beside = width(name, 12, "bold") + number + 2 * PAD < ROOM;
    const room = beside ? ROOM - number - PAD : ROOM;
    const height = sheet.text(name, { room, size: 12, weight: "bold" });
    if (beside) sheet.text(value, { x: WIDTH - PAD, anchor: "end" });
    sheet.y += height;
    if (!beside) sheet.y += sheet.text(value);
    const ran = line.querySelector(".ran");
    if (ran) sheet.y += sheet.text(plain(ran), { size: 9, fill: sheet.quiet });
    sheet.y += 3;
    const image = line.querySelector(":scope > svg");
    if (image) sheet.y += sheet.drawing(image) + 3;
    const pieces = line.querySelector(".pieces");
    if (pieces) legend(sheet, pieces);
    sheet.y += 6;
  }

  function legend(sheet, pieces) {
    let x = PAD;
    for (const piece of pieces.querySelectorAll("li")) {
      const [told] = wrapped(plain(piece), ROOM - 20, 9);
      const room = width(told, 9) + 13;
      if (x > PAD && x + room > WIDTH - PAD) { x = PAD; sheet.y += 14; }
      sheet.drawing(piece.querySelector("svg"), x, 9);
      sheet.text(told, { x: x + 13, size: 9, fill: sheet.quiet });
      x += room + 11;
    }
    sheet.y += 14;
  }

  // What stands below curves: whose they are, and their amounts under their heads.
  function table(sheet, { tHead, tBodies }) {
    const heads = [...tHead.rows[0].cells].slice(1);
    const column = 100, names = ROOM - column * heads.length;
    const at = (cell) => PAD + names + column * cell.cellIndex;
    for (const head of heads) sheet.text(plain(head), { x: at(head), anchor: "end", fill: sheet.quiet });
    sheet.y += 18;
    for (const each of [...tBodies[0].rows].filter((each) => !each.hidden)) {
      const [name, ...amounts] = each.cells;
      sheet.drawing(name.querySelector("svg"), PAD, 26);
      for (const amount of amounts) sheet.text(plain(amount), { x: at(amount), anchor: "end" });
      sheet.y += sheet.text(plain(name), { x: PAD + 34, room: names - 34 }) + 4;
    }
  }

  function drawn(figure) {
    const sheet = new Sheet();
    const caption = figure.querySelector("figcaption");
    const [title, workload, scale] = ["b", ".workload", ".scale"].map((part) => plain(caption.querySelector(part)));
    sheet.y += sheet.text(`${title} · ${workload}`, { size: 16, weight: "bold" });
    sheet.y += sheet.text(scale, { fill: sheet.quiet }) + 8;
    for (const line of figure.querySelectorAll("li.line:not([hidden])")) row(sheet, line);
    for (const each of figure.querySelectorAll("svg.axis, svg.curves")) sheet.y += sheet.drawing(each) + 6;
    const amounts = figure.querySelector("table");
    if (amounts) table(sheet, amounts);
    for (const note of figure.querySelectorAll(".notes")) sheet.y += sheet.text(plain(note), { size: 9, fill: sheet.quiet });
    return sheet.done();
  }

  function save(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  async function download(figure, kind) {
    const picture = drawn(figure);
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

  for (const button of document.querySelectorAll("[data-save]")) {
    button.addEventListener("click", () => download(button.closest("figure"), button.dataset.save));
  }
})();
