// The part in 3D: orthographic, as pictures of parts are drawn, z up, with its edges.
// Runs in a gr.HTML component (page/view3d.py), which hands over `element`, `props`, `watch`.
// The visitor's view stays while the part changes; another picture begins at its own camera.
const canvas = element.querySelector("canvas");
const told = element.querySelector(".told");
const gl = canvas.getContext("webgl", {antialias: true, alpha: true});
if (!gl) {
  told.textContent = "This browser has no WebGL, so that there is no 3D view; see the drawing.";
  return;
}
const DEGREE = Math.PI / 180;
const FILLED = 0.84; // share of the shorter side of the view that the part takes at first
const VERTEX = `attribute vec3 place, normal; uniform mat3 axes; uniform vec3 middle;
uniform vec2 scale, pan; uniform float depth; varying vec3 turned;
void main() {
  vec3 p = axes * (place - middle);
  turned = axes * normal;
  gl_Position = vec4(p.xy * scale + pan, -p.z * depth, 1.0);
}`;
const FRAGMENT = `precision mediump float; varying vec3 turned; uniform vec3 face; uniform float flat_;
void main() {
  vec3 n = normalize(turned + vec3(0.0, 0.0, 1e-6));
  float light = 0.62 + 0.22 * abs(n.z) + 0.22 * dot(n, normalize(vec3(-0.4, 0.8, 0.4)));
  gl_FragColor = vec4(face * mix(light, 1.0, flat_), 1.0);
}`;
const program = gl.createProgram();
for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
  const shader = gl.createShader(kind);
  gl.shaderSource(shader, text);
  gl.compileShader(shader);
  gl.attachShader(program, shader);
}
gl.linkProgram(program);
gl.useProgram(program);
gl.getExtension("OES_element_index_uint");
const at = (name) => gl.getUniformLocation(program, name);
const spots = Object.fromEntries(
  ["axes", "middle", "scale", "pan", "depth", "face", "flat_"].map((name) => [name, at(name)]));
const PLACE = gl.getAttribLocation(program, "place");
const NORMAL = gl.getAttribLocation(program, "normal");

let part = null; // buffers, middle, size
let start = [-45, 35.264]; // azimuth and elevation of the picture's camera, degrees
const view = {azimuth: -45, elevation: 35.264, zoom: 1, pan: [0, 0]};

function filled(kind, data) {
  const buffer = gl.createBuffer();
  gl.bindBuffer(kind, buffer);
  gl.bufferData(kind, data, gl.STATIC_DRAW);
  return buffer;
}

// GLB as cad/exports.py writes it: one mesh of triangles, one of separate lines, y up.
function read(data) {
  const head = new DataView(data), length = head.getUint32(12, true);
  const told = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 20, length)));
  const values = (index) => {
    const one = told.accessors[index], where = told.bufferViews[one.bufferView];
    const from = 28 + length + (where.byteOffset || 0) + (one.byteOffset || 0);
    const count = one.count * (one.type === "VEC3" ? 3 : 1);
    return one.componentType === 5125 ? new Uint32Array(data.slice(from, from + 4 * count))
      : new Float32Array(data.slice(from, from + 4 * count));
  };
  const upright = (row) => {
    for (let i = 0; i < row.length; i += 3) [row[i + 1], row[i + 2]] = [-row[i + 2], row[i + 1]];
    return row;
  };
  const pieces = told.meshes.flatMap((mesh) => mesh.primitives);
  const mesh = pieces.find((one) => one.mode === 4), lines = pieces.find((one) => one.mode === 1);
  const places = upright(values(mesh.attributes.POSITION));
  const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
  places.forEach((value, i) => {
    low[i % 3] = Math.min(low[i % 3], value);
    high[i % 3] = Math.max(high[i % 3], value);
  });
  const indices = values(mesh.indices), edges = lines && upright(values(lines.attributes.POSITION));
  return {
    places: filled(gl.ARRAY_BUFFER, places),
    normals: filled(gl.ARRAY_BUFFER, upright(values(mesh.attributes.NORMAL))),
    indices: filled(gl.ELEMENT_ARRAY_BUFFER, indices),
    count: indices.length,
    edges: edges && filled(gl.ARRAY_BUFFER, edges),
    ends: edges ? edges.length / 3 : 0,
    middle: low.map((value, i) => (value + high[i]) / 2),
    sides: high.map((value, i) => value - low[i]),
  };
}

function axes() {
  const a = view.azimuth * DEGREE, e = view.elevation * DEGREE;
  const [ca, sa, ce, se] = [Math.cos(a), Math.sin(a), Math.cos(e), Math.sin(e)];
  return [[-sa, ca, 0], [-se * ca, -se * sa, ce], [ce * ca, ce * sa, se]];
}

function draw() {
  const ratio = window.devicePixelRatio || 1;
  const wide = Math.max(1, Math.round(canvas.clientWidth * ratio));
  const high = Math.max(1, Math.round(canvas.clientHeight * ratio));
  if (canvas.width !== wide || canvas.height !== high) [canvas.width, canvas.height] = [wide, high];
  gl.viewport(0, 0, wide, high);
  gl.clearColor(0, 0, 0, 0);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  canvas.dataset.view = [view.azimuth, view.elevation, view.zoom].map((x) => x.toFixed(1)).join(" ");
  canvas.dataset.shown = part ? "part" : "";
  if (!part) return;
  const [right, up, towards] = axes();
  const spread = (axis) => axis.reduce((sum, x, i) => sum + Math.abs(x) * part.sides[i], 0);
  const unit = view.zoom * Math.min(FILLED * wide / spread(right), FILLED * high / spread(up));
  gl.uniformMatrix3fv(spots.axes, false,
    [0, 1, 2].flatMap((i) => [right[i], up[i], towards[i]]));
  gl.uniform3fv(spots.middle, part.middle);
  gl.uniform2f(spots.scale, 2 * unit / wide, 2 * unit / high);
  gl.uniform2f(spots.pan, 2 * view.pan[0], 2 * view.pan[1]);
  gl.uniform1f(spots.depth, 1 / Math.hypot(...part.sides));
  gl.enable(gl.DEPTH_TEST);
  const dark = document.body.classList.contains("dark");
  const attribute = (place, buffer) => {
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
  };
  attribute(PLACE, part.places);
  attribute(NORMAL, part.normals);
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, part.indices);
  gl.enable(gl.POLYGON_OFFSET_FILL);
  gl.polygonOffset(1, 1);
  gl.uniform3fv(spots.face, dark ? [0.70, 0.76, 0.84] : [0.76, 0.80, 0.85]);
  gl.uniform1f(spots.flat_, 0);
  gl.drawElements(gl.TRIANGLES, part.count, gl.UNSIGNED_INT, 0);
  gl.disable(gl.POLYGON_OFFSET_FILL);
  if (!part.edges) return;
  attribute(PLACE, part.edges);
  gl.disableVertexAttribArray(NORMAL);
  gl.vertexAttrib3f(NORMAL, 0, 0, 1);
  gl.uniform3fv(spots.face, [0.06, 0.07, 0.09]);
  gl.uniform1f(spots.flat_, 1);
  gl.drawArrays(gl.LINES, 0, part.ends);
}

let asked = 0;
const soon = () => { asked ||= requestAnimationFrame(() => { asked = 0; draw(); }); };

function look(azimuth, elevation) {
  Object.assign(view, {azimuth, elevation, zoom: 1, pan: [0, 0]});
  soon();
}

let number = 0, of = null;
async function show() {
  const turn = ++number, sent = props.value;
  if (!sent) { part = null; told.hidden = false; return soon(); }
  const answer = await fetch(`gradio_api/file=${encodeURI(sent)}`);
  const data = answer.ok ? await answer.arrayBuffer() : null;
  if (turn !== number) return; // another part came meanwhile
  if (!data) { part = null; told.hidden = false; told.textContent = "The part is gone; build it again."; return soon(); }
  const old = part;
  part = read(data);
  told.hidden = true;
  if (old) [old.places, old.normals, old.indices, old.edges].forEach((one) => one && gl.deleteBuffer(one));
  const [azimuth, elevation, name] = props.seen || [-45, 35.264, ""];
  start = [azimuth, elevation];
  if (name !== of) look(azimuth, elevation);
  of = name;
  soon();
}

const STANDARD = {iso: [-45, 35.264], front: [-90, 0], back: [90, 0], left: [180, 0], right: [0, 0],
  top: [-90, 90], bottom: [-90, -90]};
element.querySelectorAll("button[data-view]").forEach((button) => button.addEventListener("click", () =>
  look(...(STANDARD[button.dataset.view] || start))));

// Mouse and fingers: one turns, with shift or the other button it moves, two zoom.
const fingers = new Map();
canvas.addEventListener("pointerdown", (event) => {
  fingers.set(event.pointerId, [event.clientX, event.clientY]);
  canvas.setPointerCapture(event.pointerId);
});
canvas.addEventListener("pointermove", (event) => {
  const before = fingers.get(event.pointerId);
  if (!before) return;
  const now = [event.clientX, event.clientY], step = [now[0] - before[0], now[1] - before[1]];
  const others = [...fingers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
  if (others.length) {
    const apart = (place) => Math.hypot(place[0] - others[0][0], place[1] - others[0][1]) || 1;
    zoom(apart(now) / apart(before));
  } else if (event.shiftKey || event.buttons & 6) {
    view.pan[0] += step[0] / canvas.clientWidth;
    view.pan[1] -= step[1] / canvas.clientHeight;
  } else turn(-step[0] * 0.5, step[1] * 0.5);
  fingers.set(event.pointerId, now);
  soon();
});
for (const kind of ["pointerup", "pointercancel"])
  canvas.addEventListener(kind, (event) => fingers.delete(event.pointerId));
canvas.addEventListener("contextmenu", (event) => event.preventDefault());
function turn(right, up) {
  view.azimuth = ((view.azimuth + right + 540) % 360) - 180;
  view.elevation = Math.max(-90, Math.min(90, view.elevation + up));
  soon();
}
function zoom(factor) {
  view.zoom = Math.max(0.2, Math.min(40, view.zoom * factor));
  soon();
}
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY * 0.0015));
}, {passive: false});
const KEYS = {ArrowLeft: () => turn(-5, 0), ArrowRight: () => turn(5, 0), ArrowUp: () => turn(0, 5),
  ArrowDown: () => turn(0, -5), "+": () => zoom(1.2), "=": () => zoom(1.2), "-": () => zoom(1 / 1.2),
  Home: () => look(...start)};
canvas.addEventListener("keydown", (event) => {
  if (!KEYS[event.key] || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  KEYS[event.key]();
});
new ResizeObserver(soon).observe(canvas);
new MutationObserver(soon).observe(document.body, {attributes: true, attributeFilter: ["class"]});
watch(["value", "seen"], show);
show();
