// Shows how far the experiment is, and renews the report below without moving what the reader looks at.
const POLL = 2000; // milliseconds
const DRAWN = 30_000; // milliseconds after which a report is shown even if its figures are not all drawn
const root = document.documentElement;
const main = document.querySelector("main");
const at = (id) => document.getElementById(id);
const system = matchMedia("(prefers-color-scheme: dark)");
const pause = (time) => new Promise((resolve) => { setTimeout(resolve, time); });
let frame = null;

function adoptTheme() {
  let chosen = null;
  try { chosen = localStorage.getItem("tombola-theme"); } catch { /* the report has no choice to keep either */ }
  root.dataset.theme = chosen ?? (system.matches ? "dark" : "light");
}

function duration(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const HINTS = {
  waiting: "waiting for an experiment to begin",
  interrupted: "interrupted; the same command resumes it",
};

function show(progress, now) {
  const { state, done, expected, name } = progress;
  const count = (number) => number.toLocaleString("en");
  at("state").dataset.state = state;
  const text = HINTS[state] ?? state;
  if (at("state").textContent !== text) at("state").textContent = text; // it is read aloud
  at("done").hidden = !expected;
  at("done").max = Math.max(expected, 1);
  at("done").value = state === "finished" ? expected : done; // where runs diverged, fewer are done
  at("counts").textContent = expected ? `${count(done)} of ${progress.at_most ? "at most " : ""}${count(expected)} runs` : "";
  const since = Math.max(0, now - progress.changed);
  const left = progress.seconds_left === null ? 0 : progress.seconds_left - since;
  at("left").textContent = left > 0 ? `about ${duration(left)} left` : "";
  at("provisional").hidden = !expected || state === "finished";
  at("changed").textContent = progress.changed ? `last change ${duration(since)} ago` : "";
  document.title = [state === "running" ? `${done}/${expected}` : state, name, "tombola"].join(" – ");
}

function showLost(why) {
  Object.assign(at("state"), { textContent: why }).dataset.state = "lost";
  at("left").textContent = "";
}

// The report of this version, drawn but not yet visible.
async function load(version) {
  const coming = Object.assign(document.createElement("iframe"), { title: "Report", className: "coming" });
  coming.src = `page.html?version=${version}`;
  const loaded = new Promise((resolve) => { coming.addEventListener("load", resolve, { once: true }); });
  main.append(coming);
  await loaded;
  const ends = performance.now() + DRAWN;
  while (!coming.contentDocument?.documentElement.dataset.drawn && performance.now() < ends) await pause(50);
  return coming;
}

// Whether the reader has selected text or opened a menu, which would be lost.
function isInUse({ contentDocument: report }) {
  return !report.getSelection().isCollapsed || report.querySelector(".save[open]") !== null;
}

// The element that the reader looks at: the last with a name that begins above, or near, the top of the window.
function place(report) {
  const named = [...report.querySelectorAll("main [id]")].map((element) => [element.id, element.getBoundingClientRect()]);
  const above = named.filter(([, box]) => box.height && box.top < 80).at(-1);
  return above && { id: above[0], top: above[1].top };
}

const openTables = (report) => [...report.querySelectorAll("button.table[aria-expanded=true]")];
const sections = (report) => [...report.querySelectorAll("main details:not(.save)")];

// Opens, scrolls and focuses in the new report what is open, scrolled to and focused in the old one.
function restore(old, next) {
  const [before, after] = [old.contentDocument, next.contentDocument];
  const named = (element) => after.getElementById(element.closest("[id]")?.id);
  for (const button of openTables(before)) named(button)?.querySelector("button.table")?.click();
  const open = new Set(sections(before).filter((one) => one.open).map((one) => one.firstElementChild.textContent));
  for (const one of sections(after)) one.open = open.has(one.firstElementChild.textContent);
  const shifted = new Map([...before.querySelectorAll(".scroll")].map((one) => [one.ariaLabel, one]));
  for (const one of after.querySelectorAll(".scroll")) {
    const { scrollLeft = 0, scrollTop = 0 } = shifted.get(one.ariaLabel) ?? {};
    one.scrollTo({ left: scrollLeft, top: scrollTop, behavior: "instant" });
  }
  const top = old.contentWindow.scrollY;
  const found = top ? place(before) : undefined;
  const same = found && after.getElementById(found.id);
  const moved = same ? same.getBoundingClientRect().top + next.contentWindow.scrollY - found.top : top;
  next.contentWindow.scrollTo({ top: moved, behavior: "instant" });
}

function adoptFocus(old, next) {
  if (document.activeElement !== old) return;
  next.contentWindow.focus();
  const { activeElement: focused } = old.contentDocument;
  const owner = next.contentDocument.getElementById(focused.closest("[id]")?.id);
  const same = owner?.id === focused.id ? owner : owner?.querySelector(`${focused.localName}.${focused.className || "none"}`);
  same?.focus({ preventScroll: true });
}

// Other sites, to which a report links, open beside it: this page shows only what is of this machine.
function openOutside(report) {
  for (const link of report.querySelectorAll("a[href]")) {
    if (link.origin !== location.origin) Object.assign(link, { target: "_blank", rel: "noopener" });
  }
}

async function renew(version) {
  const next = await load(version);
  if (!next.contentDocument?.querySelector("main")) { // the server did not answer
    next.remove();
    return;
  }
  openOutside(next.contentDocument);
  while (frame && isInUse(frame)) await pause(POLL / 4);
  if (frame) restore(frame, next);
  next.className = "";
  if (frame) adoptFocus(frame, next);
  frame?.remove();
  frame = next;
  frame.dataset.version = version;
}

async function poll() {
  let progress = null;
  try {
    const response = await fetch("progress.json", { cache: "no-cache" });
    progress = await response.json();
    if (progress.error) showLost(progress.error);
    else show(progress, Date.parse(response.headers.get("Date")) / 1000); // the clock of the server
  } catch {
    showLost("no answer: tombola watch has ended");
    return;
  }
  if (progress.version && progress.version !== frame?.dataset.version) await renew(progress.version);
}

adoptTheme();
system.addEventListener("change", adoptTheme);
addEventListener("storage", adoptTheme); // the theme is chosen in the report
for (;;) {
  await poll();
  await pause(POLL);
}
