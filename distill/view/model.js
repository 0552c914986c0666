// Show the GLB of every figure.model on the page; needs three.js and its GLTFLoader. Drag to turn it.
// The data-state of the figure is loading, ready or failed.
"use strict";

function bytesOf(figure) {
  const text = document.getElementById(figure.dataset.glb).textContent;
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function fail(figure, error) {
  figure.dataset.state = "failed";
  figure.querySelector(".stage").innerHTML = "<p>The 3D view needs WebGL, which this browser lacks. You can download the file instead.</p>";
  console.error(error);
}

function describe(figure, model) {
  model.traverse((node) => {
    if (!node.isMesh) return;
    figure.dataset.triangles = node.geometry.index.count / 3;
    figure.dataset.texture = node.material.map ? node.material.map.image.width : 0;
  });
}

function makeRenderer() {
  const renderer = new THREE.WebGLRenderer({ antialias: true });
  renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
  renderer.outputEncoding = THREE.sRGBEncoding;
  return renderer;
}

// The sphere of Box3 encloses the box, which would show a round object at half its size.
function boundingSphere(model) {
  const center = new THREE.Box3().setFromObject(model).getCenter(new THREE.Vector3());
  const corner = new THREE.Vector3();
  let radius = 0;
  model.updateWorldMatrix(true, true);
  model.traverse((node) => {
    if (!node.isMesh) return;
    const positions = node.geometry.attributes.position;
    for (let i = 0; i < positions.count; i++) {
      corner.fromBufferAttribute(positions, i).applyMatrix4(node.matrixWorld);
      radius = Math.max(radius, corner.distanceTo(center));
    }
  });
  return { center, radius };
}

function view(figure, model) {
  const stage = figure.querySelector(".stage");
  const renderer = makeRenderer();
  const scene = new THREE.Scene();
  scene.background = new THREE.Color(0xffffff);
  const camera = new THREE.PerspectiveCamera(35, 1, 0.01, 1000);
  const light = new THREE.DirectionalLight(0xffffff, 0.45);
  light.position.set(-0.6, 0.9, 1);
  camera.add(light);
  scene.add(model, camera, new THREE.AmbientLight(0xffffff, 0.65));

  const sphere = boundingSphere(model);
  const near = (1.02 * sphere.radius) / Math.sin((17.5 * Math.PI) / 180);
  const orbit = { azimuth: 0.5, elevation: 0.25, distance: near, turning: !matchMedia("(prefers-reduced-motion: reduce)").matches };

  function draw() {
    const { azimuth, elevation, distance } = orbit;
    camera.position.set(
      Math.sin(azimuth) * Math.cos(elevation), Math.sin(elevation), Math.cos(azimuth) * Math.cos(elevation),
    ).multiplyScalar(distance).add(sphere.center);
    camera.lookAt(sphere.center);
    renderer.render(scene, camera);
  }
  function turn(right, up) {
    orbit.turning = false;
    orbit.azimuth -= right;
    orbit.elevation = Math.max(-1.5, Math.min(1.5, orbit.elevation + up));
    draw();
  }
  function zoom(factor) {
    orbit.turning = false;
    orbit.distance = Math.max(0.35 * near, Math.min(3 * near, orbit.distance * factor));
    draw();
  }
  const canvas = renderer.domElement;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", figure.dataset.label + " Drag or use the arrow keys to turn, plus and minus to zoom.");
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); canvas.focus({ preventScroll: true }); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) turn(event.movementX * 0.01, event.movementY * 0.01); });
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas) return; // the page scrolls until the model has been clicked
    event.preventDefault();
    zoom(Math.exp(event.deltaY * 0.001));
  }, { passive: false });
  const keys = {
    ArrowLeft: () => turn(-0.15, 0), ArrowRight: () => turn(0.15, 0), ArrowUp: () => turn(0, -0.15), ArrowDown: () => turn(0, 0.15),
    "+": () => zoom(0.85), "=": () => zoom(0.85), "-": () => zoom(1.18),
  };
  canvas.addEventListener("keydown", (event) => { if (keys[event.key]) { event.preventDefault(); keys[event.key](); } });

  stage.replaceChildren(canvas);
  new ResizeObserver(() => {
    camera.aspect = stage.clientWidth / stage.clientHeight;
    camera.updateProjectionMatrix();
    renderer.setSize(stage.clientWidth, stage.clientHeight, false);
    draw();
  }).observe(stage);

  let visible = false;
  let last = 0;
  function animate(now) {
    if (!visible || !orbit.turning) return;
    orbit.azimuth += Math.min(now - last, 100) * 0.0004;
    last = now;
    draw();
    requestAnimationFrame(animate);
  }
  new IntersectionObserver((entries) => {
    visible = entries[entries.length - 1].isIntersecting;
    if (visible) requestAnimationFrame((now) => { last = now; animate(now); });
  }).observe(stage);
}

function load(figure) {
  figure.dataset.state = "loading";
  const failed = (error) => fail(figure, error);
  new THREE.GLTFLoader().parse(bytesOf(figure).buffer, "", (gltf) => {
    try {
      view(figure, gltf.scene);
      describe(figure, gltf.scene);
      figure.dataset.state = "ready";
    } catch (error) {
      failed(error);
    }
  }, failed);
}

function download(figure) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([bytesOf(figure)], { type: "model/gltf-binary" }));
  link.download = figure.dataset.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

for (const figure of document.querySelectorAll("figure.model")) {
  figure.querySelector("button").addEventListener("click", () => download(figure));
  const seen = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    seen.disconnect();
    load(figure);
  }, { rootMargin: "400px" });
  seen.observe(figure);
}
