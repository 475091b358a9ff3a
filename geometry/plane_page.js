"use strict";
const scene = JSON.parse(document.getElementById("scene").textContent);
const [width, height] = scene.size;
const canvas = document.getElementById("view"), failure = document.getElementById("failure");
const note = document.getElementById("note"), described = note.textContent;

// ---- Drawing -----------------------------------------------------------------------------------

const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false });
let places = null;  // of the uniforms; null until everything is loaded

function fail(sentence) {
  canvas.hidden = true;
  failure.hidden = false;
  failure.textContent = sentence;
  document.documentElement.dataset.state = "failed";
}

function compile(kind, source) {
  const shader = gl.createShader(kind);
  gl.shaderSource(shader, source);
  gl.compileShader(shader);
  return shader;
}

function link() {
  const corners = `#version 300 es
    void main() { gl_Position = vec4(gl_VertexID == 1 ? 3 : -1, gl_VertexID == 2 ? 3 : -1, 0, 1); }`;
  const fragment = document.getElementById("fragment").textContent
    .replaceAll("PLANES", scene.disparity.length)
    .replaceAll("BACKDROP", scene.backdrop)
    .replaceAll("PREMULTIPLIED", scene.premultiplied);
  const program = gl.createProgram();
  gl.attachShader(program, compile(gl.VERTEX_SHADER, corners));
  gl.attachShader(program, compile(gl.FRAGMENT_SHADER, fragment));
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw Error(gl.getProgramInfoLog(program));
  gl.useProgram(program);
  const found = {};
  for (const name of ["canvas", "size", "focal", "center", "camera", "pivot", "zoom", "disparity", "alphas"])
    found[name] = gl.getUniformLocation(program, name);
  gl.uniform2f(found.size, width, height);
  gl.uniform2fv(found.focal, scene.focal);
  gl.uniform2fv(found.center, scene.center);
  gl.uniform1fv(found.disparity, scene.disparity);
  gl.uniform1i(found.alphas, 1);
  return found;
}

function allocate(unit, format) {
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D_ARRAY, gl.createTexture());
  gl.texStorage3D(gl.TEXTURE_2D_ARRAY, 1, format, width, height, scene.disparity.length);
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T])
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, side, gl.CLAMP_TO_EDGE);
  for (const filter of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER])
    gl.texParameteri(gl.TEXTURE_2D_ARRAY, filter, gl.LINEAR);
}

async function upload(unit, plane, format, source) {
  const image = new Image();
  image.src = source;
  await image.decode();
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.texSubImage3D(gl.TEXTURE_2D_ARRAY, 0, 0, 0, plane, width, height, 1, format, gl.UNSIGNED_BYTE, image);
}

async function load() {
  const planes = scene.disparity.length;
  const side = gl.getParameter(gl.MAX_TEXTURE_SIZE), layers = gl.getParameter(gl.MAX_ARRAY_TEXTURE_LAYERS);
  if (Math.max(width, height) > side || planes > layers)
    throw Error(`it draws up to ${layers} planes of ${side} pixels`);
  const found = link();
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  allocate(0, gl.RGBA8);
  allocate(1, gl.R8);
  for (let k = 0; k < planes; k++) {
    note.textContent = `loading plane ${k + 1} of ${planes}`;
    await upload(0, k, gl.RGBA, scene.colors[k]);
    await upload(1, k, gl.RED, scene.alphas[k]);
  }
  if (gl.getError() === gl.OUT_OF_MEMORY) throw Error("its memory is too small");
  note.textContent = described;
  scene.colors = scene.alphas = null;  // they are on the graphics card now
  places = found;
}

function draw() {
  if (!places || gl.isContextLost()) return;
  const [x, y, z] = fixed ? [fixed.x, fixed.y, fixed.z] : ["x", "y", "z"].map(axis => pose[axis]);
  gl.viewport(0, 0, canvas.width, canvas.height);
  gl.uniform2f(places.canvas, canvas.width, canvas.height);
  gl.uniform3f(places.camera, x, y, z);
  gl.uniform1f(places.pivot, fixed ? 0 : scene.pivot);
  gl.uniform1f(places.zoom, fixed ? 1 : scene.zoom);
  gl.drawArrays(gl.TRIANGLES, 0, 3);
  document.documentElement.dataset.state = "drawn";
}

// ---- Size: as large as fits, in the screen's own pixels where that shows more -------------------

let fixed = null;  // a pose given in the address: #x=0.1&y=0&z=0&size=native
let detail = 1;    // lower while a slow device moves

function fit() {
  const given = new URLSearchParams(location.hash.slice(1)), native = given.get("size") === "native";
  const number = name => Number(given.get(name)) || 0;
  fixed = ["x", "y", "z", "size"].some(name => given.has(name))
    ? { x: number("x"), y: number("y"), z: number("z") } : null;
  const room = document.querySelector("main").getBoundingClientRect(), density = devicePixelRatio || 1;
  const scale = native ? 1 / density : Math.min(room.width / width, room.height / height);
  const whole = length => Math.floor(length * density + 1e-6) / density;  // pixels of the screen
  const [wide, high] = [whole(width * scale), whole(height * scale)];
  const finer = Math.min(Math.max(scale * density, 1), 2) / scale * (fixed ? 1 : detail);
  canvas.width = Math.round(wide * finer);
  canvas.height = Math.round(high * finer);
  canvas.style.width = `${wide}px`;
  canvas.style.height = `${high}px`;
  canvas.style.left = native ? 0 : `${whole((room.width - wide) / 2)}px`;
  canvas.style.top = native ? 0 : `${whole((room.height - high) / 2)}px`;
  draw();
}

// ---- Moving: the camera glides to its goal; until someone takes it, it sways ---------------------

const pose = { x: 0, y: 0, z: 0 }, goal = { x: 0, y: 0, z: 0 };
let swaying = !matchMedia("(prefers-reduced-motion: reduce)").matches, before = 0, asleep = true;

function frame(now) {
  if (fixed) { asleep = true; return; }
  if (swaying) {
    goal.x = 0.6 * scene.reach.x * Math.sin(now / 1300);
    goal.y = 0.3 * scene.reach.y * Math.sin(now / 1900);
  }
  const spent = Math.max(now - before, 0);
  before = now;
  if (spent > 80 && spent < 1000 && detail > 0.3) { detail *= 0.8; fit(); }
  const part = 1 - Math.exp(-Math.min(spent, 100) / 110);
  let left = 0;
  for (const axis in goal) {
    pose[axis] += part * (goal[axis] - pose[axis]);
    left = Math.max(left, Math.abs(goal[axis] - pose[axis]) / scene.reach[axis]);
  }
  draw();
  asleep = !swaying && left < 1e-3;
  if (!asleep) requestAnimationFrame(frame);
  else if (detail < 1) { detail = 1; fit(); }
}

function wake() {
  if (!asleep || fixed || !places) return;
  asleep = false;
  before = performance.now();
  requestAnimationFrame(frame);
}

function go(changes) {
  swaying = false;
  for (const axis in changes) {
    const reach = scene.reach[axis], least = axis === "z" ? -scene.back : -reach;
    goal[axis] = Math.min(Math.max(changes[axis], least), reach);
  }
  wake();
}

const move = (axis, part) => go({ [axis]: goal[axis] + part * scene.reach[axis] });
const reset = () => go({ x: 0, y: 0, z: 0 });
const keys = {
  ArrowLeft: () => move("x", -0.2), ArrowRight: () => move("x", 0.2),
  ArrowUp: () => move("y", -0.2), ArrowDown: () => move("y", 0.2),
  "+": () => move("z", 0.1), "=": () => move("z", 0.1), "-": () => move("z", -0.1),
  r: reset, Home: reset,
};
const fingers = new Map();
const apart = ([a, b]) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);

function point(event) {
  const box = canvas.getBoundingClientRect(), last = fingers.get(event.pointerId);
  if (event.pointerType === "mouse") {
    const across = (event.clientX - box.left) / box.width, down = (event.clientY - box.top) / box.height;
    go({ x: (2 * across - 1) * scene.reach.x, y: (2 * down - 1) * scene.reach.y });
  } else if (last && fingers.size === 1) {
    move("x", -3 * (event.clientX - last.clientX) / box.width);
    move("y", -3 * (event.clientY - last.clientY) / box.height);
    fingers.set(event.pointerId, event);
  } else if (last) {
    const distance = apart([...fingers.values()]);
    fingers.set(event.pointerId, event);
    move("z", Math.log(apart([...fingers.values()]) / distance));
  }
}

function listen() {
  addEventListener("keydown", event => {
    const action = keys[event.key] || keys[event.key.toLowerCase()];
    if (!action || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    action();
  });
  canvas.addEventListener("pointerdown", event => {
    if (event.pointerType !== "mouse") fingers.set(event.pointerId, event);
  });
  for (const end of ["pointerup", "pointercancel"])
    addEventListener(end, event => fingers.delete(event.pointerId));
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("wheel", event => {
    event.preventDefault();
    move("z", -event.deltaY * [0.001, 0.03, 0.5][event.deltaMode] * (event.ctrlKey ? 6 : 1));
  }, { passive: false });
  document.getElementById("reset").addEventListener("click", reset);
  addEventListener("hashchange", () => { fit(); wake(); });
  new ResizeObserver(fit).observe(document.querySelector("main"));
  canvas.addEventListener("webglcontextlost", () => fail("The graphics were reset. Load the page again."));
}

if (gl) {
  listen();
  load().then(() => { fit(); wake(); }, error => fail(
    `This device cannot draw the picture (${error.message}). Try a smaller picture or another device.`));
} else {
  fail("This picture needs WebGL 2, and the browser does not offer it. Switch on hardware acceleration in the "
    + "browser's settings, or open the page in a current browser.");
}
