// The tiles of the objects: filters, their order, and each strip of views as a turntable.
"use strict";

const VIEWS = 16;
const AT_REST = 1; // the view that a tile shows first: 22.5 degrees from the front
const form = document.querySelector(".filters");
const grid = document.querySelector(".tiles");
const tiles = [...grid.children];
const strips = document.getElementById("strips").textContent.split("\n");

function matches(tile, wanted) {
  const data = tile.dataset;
  return (
    data.uid.toLowerCase().includes(wanted.get("text").trim().toLowerCase()) &&
    ["", data.status].includes(wanted.get("status")) &&
    (!wanted.get("flag") || data.flags.split(" ").includes(wanted.get("flag"))) &&
    ["", data.license].includes(wanted.get("license")) &&
    ["", data.source].includes(wanted.get("source"))
  );
}

function filter() {
  const wanted = new FormData(form);
  let shown = 0;
  for (const tile of tiles) {
    tile.hidden = !matches(tile, wanted);
    shown += !tile.hidden;
  }
  form.querySelector("output").textContent = shown === tiles.length ? `${shown} shown` : `${shown} of ${tiles.length} shown`;
  document.getElementById("nothing").hidden = shown > 0;
  stopAt(document.activeElement);
}

// Missing values (a failed object has no coverage) come last in both directions.
function order() {
  const value = form.elements.order.value;
  const key = value.replace("-", "");
  const sign = value.startsWith("-") ? -1 : 1;
  const number = (tile) => (tile.dataset[key] === "" ? Infinity : sign * Number(tile.dataset[key]));
  const byPlace = (a, b) => a.dataset.position - b.dataset.position;
  const compare = key === "uid"
    ? (a, b) => (a.dataset.uid < b.dataset.uid ? -1 : 1)
    : (a, b) => (number(a) === number(b) ? byPlace(a, b) : number(a) - number(b));
  grid.append(...tiles.sort(compare));
  stopAt(null);
}

function show(turntable, view) {
  const turned = (view + VIEWS) % VIEWS;
  turntable.style.setProperty("--view", turned);
  turntable.dataset.view = turned;
  turntable.setAttribute("aria-valuenow", turned + 1);
  turntable.setAttribute("aria-valuetext", `azimuth ${(turned * 360) / VIEWS} degrees`);
}

function viewAt(turntable, x) {
  const box = turntable.getBoundingClientRect();
  return Math.max(0, Math.min(VIEWS - 1, Math.floor(((x - box.left) / box.width) * VIEWS)));
}

function turntableOf(event) {
  return event.target.closest(".turntable[data-strip]");
}

// The Tab key stops at one tile; the arrow keys move from there.
function stopAt(element) {
  const turntables = [...grid.querySelectorAll(".tile:not([hidden]) .turntable[data-strip]")];
  for (const turntable of grid.querySelectorAll('[tabindex="0"]')) turntable.tabIndex = -1;
  const stop = turntables.includes(element) ? element : turntables[0];
  if (stop) stop.tabIndex = 0;
}

function step(turntable, by) {
  const turntables = [...grid.querySelectorAll(".tile:not([hidden]) .turntable[data-strip]")];
  const next = turntables[turntables.indexOf(turntable) + by];
  if (!next) return;
  turntable.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

grid.addEventListener("pointermove", (event) => {
  const turntable = turntableOf(event);
  if (turntable) show(turntable, viewAt(turntable, event.clientX));
});
grid.addEventListener("pointerdown", (event) => {
  const turntable = turntableOf(event);
  if (turntable) show(turntable, viewAt(turntable, event.clientX));
});
grid.addEventListener("pointerout", (event) => {
  const turntable = turntableOf(event);
  if (turntable && event.pointerType === "mouse") show(turntable, AT_REST);
});
grid.addEventListener("keydown", (event) => {
  const turntable = turntableOf(event);
  if (!turntable || event.ctrlKey || event.metaKey || event.altKey) return;
  const view = Number(turntable.dataset.view);
  const keys = {
    ArrowLeft: () => show(turntable, view - 1), ArrowRight: () => show(turntable, view + 1),
    ArrowUp: () => step(turntable, -1), ArrowDown: () => step(turntable, 1),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});

form.addEventListener("input", (event) => (event.target.name === "order" ? order() : filter()));
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(() => { order(); filter(); }));
for (const name of ["license", "flag", "source"]) {
  for (const button of document.querySelectorAll(`button[data-${name}]`)) {
    button.addEventListener("click", () => {
      form.elements[name].value = button.dataset[name];
      filter();
      document.getElementById("objects").scrollIntoView();
    });
  }
}

// A strip is decoded when its tile comes near the window.
const near = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((each) => each.isIntersecting)) {
    const turntable = entry.target.querySelector(".turntable");
    turntable.style.backgroundImage = `url(data:image/webp;base64,${strips[turntable.dataset.strip]})`;
    near.unobserve(entry.target);
  }
}, { rootMargin: "500px" });
for (const turntable of grid.querySelectorAll(".turntable[data-strip]")) {
  show(turntable, AT_REST);
  near.observe(turntable.closest(".tile"));
}
order();
filter();
