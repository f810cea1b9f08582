// Draws the figures with Vega in the theme of the page; shows their numbers as tables and CSV files.
const read = (element) => JSON.parse(element.textContent);
const themes = read(document.getElementById("themes"));
const root = document.documentElement;
const button = document.getElementById("theme");
const announced = document.getElementById("status");
const system = matchMedia("(prefers-color-scheme: dark)");

function storedTheme() {
  try { return localStorage.getItem("tombola-theme"); } catch { return null; } // pages opened from files may have no storage
}

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
}

const figures = [...document.querySelectorAll("[data-figure]")].map((element) => {
  const { chart, cell, columns, rows } = read(element.querySelector(".payload"));
  const named = rows.map((row) => Object.fromEntries(columns.map((column, i) => [column, row[i]])));
  return { element, live: element.querySelector(".live"), chart, cell, columns, rows, named, view: null, fits: 0 };
});

// The number of panels in a row, and of legend entries, that fit side by side.
function layoutOf(figure) {
  const width = figure.element.clientWidth;
  const panels = figure.chart.concat?.length ?? 0;
  const cells = panels ? (width < 640 ? 1 : panels)
    : figure.cell ? Math.max(1, Math.floor((width - 60) / (figure.cell + 30))) : 0;
  const panelWidth = panels ? Math.floor(width / cells) - 76 : 0; // beside its axis, as figure.py has it
  const entries = Math.max(2, Math.floor(width / 125));
  return { cells, entries, panelWidth, key: `${cells} ${entries} ${panelWidth}` };
}

async function draw(figure) {
  const { cells, entries, panelWidth, key } = layoutOf(figure);
  const config = structuredClone(themes[isDark() ? "dark" : "light"]);
  config.legend.columns = entries;
  const chart = { ...structuredClone(figure.chart), datasets: { rows: figure.named } };
  if (cells) chart.columns = cells;
  if (panelWidth) for (const panel of chart.concat) panel.width = panelWidth;
  figure.fits = key;
  figure.element.classList.add("drawn"); // hidden elements have no size to measure
  try {
    const previous = figure.view;
    figure.view = await window.vegaEmbed(figure.live, chart, {
      mode: "vega-lite",
      renderer: "svg",
      ast: true, // interpret expressions, because the page forbids eval
      config,
      actions: false,
      tooltip: { theme: isDark() ? "dark" : "light" },
    });
    previous?.finalize();
  } catch (error) {
    figure.element.classList.remove("drawn"); // the static picture stays
    console.error(error);
  }
}

async function drawAll(needed = () => true) {
  for (const figure of figures) if (needed(figure)) await draw(figure);
  root.dataset.drawn = isDark() ? "dark" : "light";
}

function updateThemeButton() {
  const dark = isDark();
  button.setAttribute("aria-pressed", String(dark));
  button.textContent = dark ? "Light" : "Dark";
  button.setAttribute("aria-label", dark ? "Light colours" : "Dark colours");
}

function csvCell(value) {
  const text = value === null ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csvOf(figure) {
  const lines = [figure.columns, ...figure.rows].map((row) => row.map(csvCell).join(","));
  return new Blob([lines.join("\n") + "\n"], { type: "text/csv" });
}

// Saved pictures are the static ones, which are made for paper, whatever the theme of the page.
function svgOf(figure) {
  const text = atob(figure.element.querySelector(".static").src.split(",")[1]);
  return new Blob([Uint8Array.from(text, (byte) => byte.charCodeAt(0))], { type: "image/svg+xml" });
}

async function pngOf(figure, scale) {
  const image = new Image();
  image.src = figure.element.querySelector(".static").src;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: scale * image.width, height: scale * image.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

async function save(figure, format, scale) {
  const blob = await { csv: csvOf, svg: svgOf, png: pngOf }[format](figure, scale);
  const url = URL.createObjectURL(blob);
  Object.assign(document.createElement("a"), { href: url, download: `${figure.element.dataset.figure}.${format}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const MAX_ROWS = 200; // of a table

function tableCell(value) {
  if (value === null) return "–";
  if (typeof value !== "number") return String(value);
  const text = String(Number.isInteger(value) ? value : Number(value.toPrecision(6)));
  return text.replaceAll("-", "−");
}

function element(name, text, attributes = {}) {
  return Object.assign(document.createElement(name), { textContent: text }, attributes);
}

// A table of the figure's numbers, for readers who cannot see the chart or use a pointer.
function numbersTable({ element: figure, columns, rows }) {
  const table = document.createElement("table");
  const title = figure.querySelector("h3").textContent;
  const some = rows.length > MAX_ROWS ? `. The first ${MAX_ROWS} of ${rows.length} rows; the CSV has them all.` : "";
  table.append(element("caption", title + some), document.createElement("thead"), document.createElement("tbody"));
  const classes = columns.map((_, i) => rows.some((row) => typeof row[i] === "string") ? "words" : "");
  table.tHead.insertRow().append(...columns.map((column, i) =>
    element("th", column.replaceAll("_", " "), { scope: "col", className: classes[i] })));
  for (const row of rows.slice(0, MAX_ROWS)) {
    table.tBodies[0].insertRow().append(...row.map((value, i) =>
      i ? element("td", tableCell(value), { className: classes[i] })
        : element("th", tableCell(value), { className: classes[i], scope: "row" })));
  }
  return table;
}

function toggle(figure, button) {
  const numbers = figure.element.querySelector(".numbers");
  if (!numbers.firstChild) numbers.append(numbersTable(figure));
  numbers.hidden = !numbers.hidden;
  button.setAttribute("aria-expanded", String(!numbers.hidden));
}

async function copy(text) {
  const range = document.createRange();
  range.selectNodeContents(text);
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  try {
    await navigator.clipboard.writeText(text.textContent);
    announced.textContent = "Copied.";
  } catch {
    announced.textContent = "Selected; copy it with Ctrl-C."; // pages opened from files may have no clipboard
  }
}

// Says of tables that are wider than the page that they can be scrolled.
const sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    const box = target.closest(".scroll");
    box.classList.toggle("overflowing", box.scrollWidth > box.clientWidth + 1);
  }
});
for (const box of document.querySelectorAll(".scroll")) sizes.observe(box);
// Browsers that do not print the contents of closed details get them open.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")].filter((one) => !one.closest(".tools, .live"));
  for (const one of opened) one.open = true;
});
addEventListener("afterprint", () => { for (const one of opened) one.open = false; });

if (storedTheme()) root.dataset.theme = storedTheme();
button.hidden = false;
updateThemeButton();
button.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  try { localStorage.setItem("tombola-theme", root.dataset.theme); } catch { /* the choice is not kept */ }
  updateThemeButton();
  drawAll();
});
system.addEventListener("change", () => { updateThemeButton(); drawAll(); });
for (const figure of figures) {
  const [tools, table, menu] = [".tools", ".table", ".save"].map((name) => figure.element.querySelector(name));
  tools.hidden = false;
  table.addEventListener("click", () => toggle(figure, table));
  for (const one of menu.querySelectorAll("[data-saves]")) {
    one.addEventListener("click", () => save(figure, one.dataset.saves, Number(one.dataset.scale)));
  }
  menu.addEventListener("click", (event) => { if (event.target.closest(".formats")) menu.open = false; });
  menu.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { menu.open = false; menu.firstElementChild.focus(); }
  });
}
for (const one of document.querySelectorAll("[data-copies]")) {
  one.hidden = false;
  one.addEventListener("click", async () => {
    await copy(document.getElementById(one.dataset.copies));
    one.textContent = announced.textContent === "Copied." ? "Copied" : "Selected";
    setTimeout(() => { one.textContent = "Copy"; }, 2000);
  });
}
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll(".save[open]")) if (!menu.contains(event.target)) menu.open = false;
});
let timer = 0;
addEventListener("resize", () => {
  clearTimeout(timer);
  timer = setTimeout(() => drawAll((figure) => layoutOf(figure).key !== figure.fits), 200);
});
await drawAll();
