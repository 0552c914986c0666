// Sliders over images; a page with data-reload (seconds) on its body loads itself again while its run is unfinished.
"use strict";

for (const figure of document.querySelectorAll("figure.series")) {
  const slider = figure.querySelector("input");
  if (!slider) continue;
  const images = figure.querySelectorAll("img");
  const kept = `${location.pathname} ${figure.id}`;

  const show = () => {
    images.forEach((image, number) => { image.hidden = number !== slider.valueAsNumber; });
    figure.querySelector("output").textContent = images[slider.valueAsNumber].alt;
    slider.setAttribute("aria-valuetext", images[slider.valueAsNumber].alt);
  };
  slider.addEventListener("input", () => {
    show();
    // A reload keeps the position; at the end the slider follows the run.
    if (slider.value === slider.max) sessionStorage.removeItem(kept);
    else sessionStorage.setItem(kept, slider.value);
  });
  slider.value = sessionStorage.getItem(kept) ?? slider.max; // a browser may restore an older value
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
