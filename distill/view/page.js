// Sliders over pictures, and a page that loads itself again while a run is unfinished (body's data-reload, in seconds).
"use strict";

for (const figure of document.querySelectorAll("figure.series")) {
  const slider = figure.querySelector("input");
  if (!slider) continue;
  const pictures = figure.querySelectorAll("img");
  const kept = `${location.pathname} ${figure.id}`;

  const show = () => {
    pictures.forEach((picture, number) => { picture.hidden = number !== slider.valueAsNumber; });
    figure.querySelector("output").textContent = pictures[slider.valueAsNumber].alt;
    slider.setAttribute("aria-valuetext", pictures[slider.valueAsNumber].alt);
  };
  slider.addEventListener("input", () => {
    show();
    // The place is kept when the page loads again; at the end it follows the run.
    if (slider.value === slider.max) sessionStorage.removeItem(kept);
    else sessionStorage.setItem(kept, slider.value);
  });
  slider.value = sessionStorage.getItem(kept) ?? slider.max; // a browser may restore what was there before a reload
  show();
}

if (document.body.dataset.reload) {
  let held = false;
  for (const kind of ["pointerdown", "pointerup", "pointercancel"]) {
    addEventListener(kind, () => { held = kind === "pointerdown"; }, { capture: true });
  }
  setInterval(() => {
    if (!held && !document.hidden) location.reload();
  }, 1000 * document.body.dataset.reload);
}
