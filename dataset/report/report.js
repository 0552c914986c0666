// The grid of objects: filters, order, and each object's strip of views as a turntable.
"use strict";

const VIEWS = 16;
const AT_REST = 1; // the view that a tile shows unasked: 22.5 degrees off the front
const form = document.querySelector(".filters");
const grid = document.querySelector(".grid");
const tiles = [...grid.children];
const strips = document.getElementById("strips").textContent.split("\n");

function matches(tile, wanted) {
  const data = tile.dataset;
  return (
    data.uid.toLowerCase().includes(wanted.get("text").trim().toLowerCase()) &&
    ["", data.status].includes(wanted.get("status")) &&
    (!wanted.get("flag") || data.flags.split(" ").includes(wanted.get("flag"))) &&
    ["", data.licence].includes(wanted.get("licence")) &&
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

// What was not measured (a failed object has no coverage) comes last in either direction.
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

function show(picture, view) {
  const turned = (view + VIEWS) % VIEWS;
  picture.style.setProperty("--view", turned);
  picture.dataset.view = turned;
  picture.setAttribute("aria-valuenow", turned + 1);
  picture.setAttribute("aria-valuetext", `azimuth ${(turned * 360) / VIEWS} degrees`);
}

function viewAt(picture, x) {
  const box = picture.getBoundingClientRect();
  return Math.max(0, Math.min(VIEWS - 1, Math.floor(((x - box.left) / box.width) * VIEWS)));
}

function pictureOf(event) {
  return event.target.closest(".picture[data-strip]");
}

// One tile is where the Tab key stops; the arrow keys go on from there.
function stopAt(element) {
  const pictures = [...grid.querySelectorAll(".tile:not([hidden]) .picture[data-strip]")];
  for (const picture of grid.querySelectorAll('[tabindex="0"]')) picture.tabIndex = -1;
  const stop = pictures.includes(element) ? element : pictures[0];
  if (stop) stop.tabIndex = 0;
}

function step(picture, by) {
  const pictures = [...grid.querySelectorAll(".tile:not([hidden]) .picture[data-strip]")];
  const next = pictures[pictures.indexOf(picture) + by];
  if (!next) return;
  picture.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

grid.addEventListener("pointermove", (event) => {
  const picture = pictureOf(event);
  if (picture) show(picture, viewAt(picture, event.clientX));
});
grid.addEventListener("pointerdown", (event) => {
  const picture = pictureOf(event);
  if (picture) show(picture, viewAt(picture, event.clientX));
});
grid.addEventListener("pointerout", (event) => {
  const picture = pictureOf(event);
  if (picture && event.pointerType === "mouse") show(picture, AT_REST);
});
grid.addEventListener("keydown", (event) => {
  const picture = pictureOf(event);
  if (!picture || event.ctrlKey || event.metaKey || event.altKey) return;
  const view = Number(picture.dataset.view);
  const keys = {
    ArrowLeft: () => show(picture, view - 1), ArrowRight: () => show(picture, view + 1),
    ArrowUp: () => step(picture, -1), ArrowDown: () => step(picture, 1),
  };
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
});

form.addEventListener("input", (event) => (event.target.name === "order" ? order() : filter()));
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(() => { order(); filter(); }));
for (const name of ["licence", "flag", "source"]) {
  for (const button of document.querySelectorAll(`button[data-${name}]`)) {
    button.addEventListener("click", () => {
      form.elements[name].value = button.dataset[name];
      filter();
      document.getElementById("objects").scrollIntoView();
    });
  }
}

// A strip becomes a picture when its tile comes near.
const near = new IntersectionObserver((entries) => {
  for (const entry of entries.filter((seen) => seen.isIntersecting)) {
    const picture = entry.target.querySelector(".picture");
    picture.style.backgroundImage = `url(data:image/webp;base64,${strips[picture.dataset.strip]})`;
    near.unobserve(entry.target);
  }
}, { rootMargin: "500px" });
for (const picture of grid.querySelectorAll(".picture[data-strip]")) {
  show(picture, AT_REST);
  near.observe(picture.closest(".tile"));
}
order();
filter();
