"use strict";
/* The page of the QA game: it draws, drags and asks; what is right, game.py knows. */

const HALF = 3.8; // metres from the head to the edge of the plan
const STEP = 0.1, STRIDE = 0.5; // metres of an arrow key, and with Shift
const $ = (id) => document.getElementById(id);
const make = (name, text, attributes = {}) => {
  const element = document.createElement(name);
  if (text !== undefined) element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};

const state = {
  about: null, mode: "guess", hall: 0, scene: null, result: null, recording: null,
  sources: [{ label: null, place: [1.2, 0.4, -1.4] }, { label: null, place: [-1.2, -0.5, 0.9] }], count: 1,
};

/* ---- talking to game.py ---- */

async function send(address, content) {
  const body = content instanceof Blob ? content : JSON.stringify(content ?? {});
  let response;
  try {
    response = await fetch(address, { method: "POST", body });
  } catch {
    throw new Error("the game does not answer: is game.py still running?");
  }
  const found = await response.json().catch(() => ({ error: `the game failed (${response.status})` }));
  if (!response.ok) throw new Error(found.error);
  return found;
}

/* Run `work`; its button is busy meanwhile, its error is shown in `place`. */
async function attempt(button, place, work) {
  if (button?.getAttribute("aria-busy") === "true") return;
  button?.setAttribute("aria-busy", "true");
  $(place).hidden = true;
  try {
    await work();
  } catch (error) {
    $(place).textContent = sentence(error.message);
    $(place).hidden = false;
  } finally {
    button?.removeAttribute("aria-busy");
  }
}

/* A message as a sentence; a file's name at its beginning stays as it is. */
const sentence = (text) => (/^\S+\.\w/.test(text) ? text : text.charAt(0).toUpperCase() + text.slice(1)) + (/[.!?]$/.test(text) ? "" : ".");
const say = (text) => { $("status").textContent = text; };

/* ---- positions ---- */

const step = (metres) => Math.floor(2 * metres + 0.5) / 2;
const far = (place) => Math.hypot(...place);
const metres = (value) => `${value} m`;
const words = ([x, y, z]) => [x >= 0 ? "right" : "left", z <= 0 ? "front" : "behind", y >= 0 ? "above" : "below"];
const described = (place) => `${words(place).join(", ")}; ${metres(step(far(place)))}`;
const cut = (value, low, high) => Math.min(Math.max(value, low), high);
const limits = () => {
  const { walls, margin } = state.about.halls[state.hall];
  return [[walls.left + margin, walls.right - margin], [walls.floor + margin, walls.ceiling - margin],
    [walls.front + margin, walls.back - margin]].map(([low, high]) => [Math.ceil(low * 10) / 10, Math.floor(high * 10) / 10]);
};

/* Inside the room and outside the head, on a grid of 10 cm where that is possible. */
function fitted(place) {
  const bounds = limits();
  let [x, y, z] = place.map((value, axis) => cut(Math.round(value * 10) / 10, ...bounds[axis]));
  const near = state.about.nearest;
  if (Math.hypot(x, y, z) < near) {
    const across = Math.hypot(x, z), wanted = Math.sqrt(Math.max(near * near - y * y, 0)) + 0.005;
    [x, z] = across ? [x, z].map((value) => Math.round((value * wanted / across) * 1000) / 1000) : [0, -wanted];
  }
  return [x, y, z];
}

/* ---- the plan ---- */

const SVG = "http://www.w3.org/2000/svg";
const shape = (name, attributes) => {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
};

function drawRoom() {
  const hall = state.about.halls[state.hall], { left, right, front, back } = hall.walls;
  for (const [key, value] of Object.entries({ x: left, y: front, width: right - left, height: back - front })) {
    for (const id of ["room", "inside"]) $(id).setAttribute(key, value);
  }
  const [width, height, length] = hall.size;
  $("plan-note").textContent = `${width} × ${length} × ${height} m`;
}

function drawRings() {
  for (const radius of [1, 2, 3]) {
    $("rings").append(shape("circle", { r: radius }));
    const text = shape("text", { x: radius * Math.SQRT1_2 + 0.06, y: radius * Math.SQRT1_2 + 0.06 });
    text.textContent = `${radius} m`;
    $("rings").append(text);
  }
}

/* A quadrant, and in it an arc at a distance: all that an answer says, seen from above. */
function drawGuess(who, { side, depth, distance }) {
  const group = shape("g", { class: who });
  if (side && depth) {
    const x = side === "right" ? 1 : -1, z = depth === "front" ? -1 : 1, edge = 3.6;
    group.append(shape("path", { class: "area", "clip-path": "url(#walls)", d: `M0 0H${x * edge}V${z * edge}H0z` }));
    if (distance) {
      const r = Math.min(distance, edge), a = 0.12;
      const [x1, z1, x2, z2] = [x * r * Math.cos(a), z * r * Math.sin(a), x * r * Math.sin(a), z * r * Math.cos(a)];
      group.append(shape("path", { class: "arc", d: `M${x1} ${z1}A${r} ${r} 0 0 ${x * z > 0 ? 1 : 0} ${x2} ${z2}` }));
    }
  }
  $("guesses").append(group);
}

function drawPlan() {
  drawRoom();
  $("guesses").replaceChildren();
  const legend = [];
  if (state.result) {
    const { said } = state.result;
    for (const who of ["you", "model"]) if (said[who]) drawGuess(who, said[who]);
    if (said.you) legend.push(["you", "your guess"]);
    legend.push(["model", "the model’s"], ["truth", state.result.sounds.length > 1 ? "the sound whose place was asked" : "the truth"]);
    if (state.result.sounds.length > 1) legend.push(["other", "the other sound"]);
  } else if (state.scene?.hidden) {
    drawGuess("you", readGuess());
    legend.push(["you", "your guess; click on the plan or fill in the form"]);
  }
  $("legend").replaceChildren(...legend.map(([who, text]) => make("span", text, { class: who })));
  drawHandles();
  if ($("handles").children.length) $("legend").append("▲ above the ears, ▼ below");
}

function drawHandles() {
  const handles = $("handles");
  const open = state.mode === "place" && !state.scene?.hidden && !state.result;
  $("plan").classList.toggle("still", !open && !state.scene?.hidden);
  if (open) {
    while (handles.querySelectorAll(".movable").length !== state.count || handles.children.length !== state.count) {
      handles.replaceChildren(...state.sources.slice(0, state.count).map((_, number) => newHandle(number)));
    }
    state.sources.slice(0, state.count).forEach((source, number) => {
      const handle = handles.children[number];
      stand(handle, source.place);
      handle.setAttribute("aria-label", `Sound ${number + 1}, ${source.label}: ${described(source.place)}. Arrow keys move it, Page Up and Page Down its height.`);
      handle.querySelector("b").textContent = source.label;
    });
  } else if (state.result) {
    handles.replaceChildren(...state.result.sounds.map(({ names, place }, number) => {
      const main = number === state.result.located;
      const handle = make("div", undefined, { class: `handle truth${main ? "" : " other"}`, role: "img" });
      handle.append(make("i"), make("b", names.join("; ")));
      handle.setAttribute("aria-label", `${names.join("; ")}: ${described(place)}`);
      stand(handle, place);
      return handle;
    }));
  } else {
    handles.replaceChildren();
  }
}

function stand(handle, [x, y, z]) {
  handle.style.left = `${50 + (50 * x) / HALF}%`;
  handle.style.top = `${50 + (50 * z) / HALF}%`;
  handle.classList.toggle("flip", z > 2.6);
  handle.querySelector("i").textContent = y >= 0 ? "▲" : "▼";
}

function newHandle(number) {
  const handle = make("button", undefined, { type: "button", class: "handle movable", "data-number": number + 1, "aria-roledescription": "movable sound" });
  handle.append(make("i", undefined, { "aria-hidden": "true" }), make("b", "", { "aria-hidden": "true" }));
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    handle.focus();
    event.preventDefault();
  });
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const [x, z] = onPlan(event);
    move(number, [x, state.sources[number].place[1], z]);
  });
  handle.addEventListener("pointerup", () => say(spoken(number)));
  handle.addEventListener("keydown", (event) => {
    const by = event.shiftKey ? STRIDE : STEP;
    const turn = { ArrowLeft: [-by, 0, 0], ArrowRight: [by, 0, 0], ArrowUp: [0, 0, -by], ArrowDown: [0, 0, by], PageUp: [0, by, 0], PageDown: [0, -by, 0] }[event.key];
    if (!turn) return;
    event.preventDefault();
    move(number, state.sources[number].place.map((value, axis) => value + turn[axis]));
    say(spoken(number));
  });
  return handle;
}

function onPlan(event) {
  const box = $("plan").getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((part) => (2 * part - 1) * HALF);
}

const spoken = (number) => `Sound ${number + 1}: ${described(state.sources[number].place)}`;

function move(number, place) {
  state.sources[number].place = fitted(place);
  forgetScene();
  drawHandles();
  showSource(number);
}

/* ---- placing ---- */

const SLIDERS = [["Left to right", 0, 1], ["Back to front", 2, -1], ["Height", 1, 1]]; // name, axis, sign
const SAID = [["right", "left"], ["above", "below"], ["behind", "front"]];

function buildSources() {
  $("sources").replaceChildren(...state.sources.map((source, number) => {
    const card = make("fieldset", undefined, { class: "source", "data-number": number + 1 });
    card.append(make("legend", `Sound ${number + 1}`, { class: "visually-hidden" }));
    const header = make("header");
    const select = labelSelect(make("select", undefined, { "aria-label": `Sound ${number + 1}` }));
    select.value = source.label;
    select.addEventListener("change", () => { source.label = select.value; forgetScene(); drawHandles(); });
    header.append(make("i", number + 1, { "aria-hidden": "true" }), select);
    const sliders = make("div", undefined, { class: "sliders" });
    for (const [name, axis, sign] of SLIDERS) {
      const id = `slider-${number}-${axis}`; // an output in a label would be taken for what it labels
      const label = make("label", name, { class: "slider", for: id });
      const input = make("input", undefined, { type: "range", id, step: STEP, "data-axis": axis, "data-sign": sign });
      input.addEventListener("input", () => {
        const place = [...source.place];
        place[axis] = sign * input.value;
        move(number, place);
      });
      label.append(" ", make("output"), input);
      sliders.append(label);
    }
    card.append(header, sliders, make("p", "", { class: "where" }));
    return card;
  }));
}

function showSource(number) {
  const card = $("sources").children[number], { place } = state.sources[number], bounds = limits();
  card.hidden = number >= state.count;
  for (const input of card.querySelectorAll("input[type=range]")) {
    const axis = +input.dataset.axis, sign = +input.dataset.sign, value = sign * place[axis];
    [input.min, input.max] = bounds[axis].map((bound) => sign * bound).sort((a, b) => a - b);
    input.value = value;
    const text = `${Math.abs(place[axis]).toFixed(1)} m${value === 0 ? "" : ` ${SAID[axis][place[axis] > 0 ? 0 : 1]}`}`;
    input.previousElementSibling.textContent = text;
    input.setAttribute("aria-valuetext", text);
  }
  card.querySelector(".where").textContent = described(place);
}

function showSources() {
  state.sources.forEach((source, number) => { source.place = fitted(source.place); showSource(number); });
  drawPlan();
}

function labelSelect(select) {
  select.append(...state.about.labels.map((label) => make("option", label, { value: label })));
  return select;
}

/* ---- scenes ---- */

async function listenTo(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error("the sound could not be loaded");
  playFrom(await response.blob());
}

function playFrom(blob) {
  const player = $("player");
  if (player.src) URL.revokeObjectURL(player.src);
  player.src = URL.createObjectURL(blob);
  $("listen").hidden = false;
  player.play().catch(() => {}); // a browser may want a click first
}

function forgetScene() {
  state.scene = state.result = null;
  $("player").pause();
  for (const id of ["listen", "guess", "result", "ask"]) $(id).hidden = true;
  $("answers").replaceChildren();
}

async function begin(address, wanted) {
  const scene = await send(address, wanted);
  forgetScene();
  state.scene = scene;
  await listenTo(`${scene.id}/audio.wav`);
  $("ask-model").hidden = scene.hidden;
  $("guess").hidden = !scene.hidden;
  if (scene.hidden) {
    $("form-guess").reset();
    $("what-part").hidden = !scene.what;
    $("ask-what").textContent = scene.what ?? "";
    $("ask-where").textContent = scene.where;
    showDistance();
    say("The scene is ready. Listen, then guess.");
  } else {
    say("The scene is ready.");
  }
  drawPlan();
}

const drawScene = () => attempt($("draw"), "error-draw", async () => {
  const sounds = +new FormData($("form-draw")).get("sounds");
  await begin("scene", { hall: state.hall, sounds });
});

const placeScene = (button, hide) => attempt(button, "error-place", () => begin("placed", {
  hall: state.hall, hide, sounds: state.sources.slice(0, state.count).map(({ label, place }) => ({ label, place })),
}));

function readGuess() {
  const form = new FormData($("form-guess"));
  return { what: $("what").value, side: form.get("side"), depth: form.get("depth"), height: form.get("height"), distance: +$("distance").value };
}

const showDistance = () => { $("distance-out").textContent = metres(+$("distance").value); $("distance").setAttribute("aria-valuetext", `${$("distance").value} metres`); };

const reveal = (button, place, guess) => attempt(button, place, async () => {
  state.result = await send(`${state.scene.id}/reveal`, { guess });
  state.scene.hidden = false;
  $("guess").hidden = true;
  $("ask-model").hidden = true;
  $("player").pause();
  showResult();
  showScore(state.result.match);
  offerQuestions(state.result.more);
  drawPlan();
  $("result-title").focus({ preventScroll: true });
  $("result").scrollIntoView({ block: "nearest", behavior: "smooth" });
});

const ROWS = [["what", "What"], ["side", "Left or right"], ["depth", "Front or behind"], ["height", "Above or below"], ["distance", "How far"]];

function showResult() {
  const { said, marks } = state.result;
  const who = [["you", "You"], ["model", "Model"], ["truth", "Truth"]].filter(([key]) => said[key]);
  $("result-head").replaceChildren(make("td"), ...who.map(([key, text]) => make("th", text, { class: key, scope: "col" })));
  const asked = ROWS.filter(([row]) => row !== "what" || state.scene.what);
  const lines = asked.map(([row, text]) => {
    const line = make("tr");
    line.append(make("th", text, { scope: "row" }));
    for (const [key] of who) {
      const value = said[key][row], cell = make("td", value === null ? "not said" : row === "distance" ? metres(value) : value);
      const right = marks[key]?.[row];
      if (right === null && row !== "what") cell.append(make("span", " too near the middle to count", { class: "hint" }));
      if (right === true || right === false) cell.append(make("span", right ? "✓" : "✗", { class: `mark ${right ? "right" : "wrong"}`, role: "img", "aria-label": right ? "right" : "wrong" }));
      line.append(cell);
    }
    return line;
  });
  if (state.result.sounds.length > 1) { // two questions, about a sound each
    const { sounds, located } = state.result;
    const group = (text) => {
      const line = make("tr", undefined, { class: "group" });
      line.append(make("th", text, { scope: "rowgroup", colspan: who.length + 1 }));
      return line;
    };
    lines.splice(state.scene.what ? 1 : 0, 0, group(`Where the ${sounds[located].names.join("; ")} is`));
    if (state.scene.what) lines.unshift(group(`What sounds ${described(sounds[1 - located].place).replace(";", ",")}`));
  }
  $("result-body").replaceChildren(...lines);
  const points = (key) => Object.values(marks[key]).filter((right) => right === true).length;
  const possible = Object.values(marks.model).filter((right) => right !== null).length;
  $("result-title").textContent = said.you
    ? `You ${points("you")}, the model ${points("model")} of ${possible} points`
    : `The model has ${points("model")} of ${possible} right`;
  $("again").textContent = state.mode === "guess" ? "Next scene" : "Move the sounds again";
  $("texts").replaceChildren(...state.result.questions.map((question, number) => make("li", `${question} — ${state.result.texts[number]}`)));
  $("result").hidden = false;
}

function showScore({ you, model, possible, rounds }) {
  for (const [name, value] of Object.entries({ you, model, possible, rounds })) $(`score-${name}`).textContent = value;
}

/* ---- questions ---- */

function offerQuestions(questions) {
  $("chips").replaceChildren(...questions.map((question) => {
    const chip = make("button", question, { type: "button" });
    chip.addEventListener("click", () => { $("question").value = question; askModel(chip); });
    return chip;
  }));
  $("start-part").hidden = !(state.recording?.seconds > state.about.seconds);
  $("ask").hidden = false;
}

const askModel = (button) => attempt(button, "error-ask", async () => {
  const subject = state.recording ?? state.scene;
  const question = $("question").value.trim() || $("question").placeholder;
  const found = await send(`${subject.id}/ask`, { question, start: state.recording ? +$("start").value : 0 });
  const item = make("li"), line = make("div");
  line.append(make("strong", `Model: ${found.answer || "(nothing)"}`));
  if (found.truth !== null) line.append(make("span", `Truth: ${found.truth}`, { class: "truth" }));
  item.append(make("q", found.question), line);
  $("answers").prepend(item);
  $("question").value = "";
});

/* ---- recordings ---- */

const upload = () => attempt($("file"), "error-recording", async () => {
  const file = $("file").files[0];
  if (!file) return;
  forgetScene();
  state.recording = null;
  $("recording").hidden = true;
  $("notes").replaceChildren();
  $("file").value = "";
  if (file.size > state.about.max_upload) throw new Error(`${file.name} is larger than ${state.about.max_upload >> 20} MB; send less`);
  state.recording = await send(`recording?name=${encodeURIComponent(file.name)}`, file);
  const facts = [["File", file.name], ["Length", `${state.recording.seconds.toFixed(1)} s`], ["At the ears", state.recording.cues]];
  $("recording").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  $("recording").hidden = false;
  $("notes").replaceChildren(...state.recording.notes.map((note) => make("li", note)));
  $("start").max = Math.max(0, state.recording.seconds - 0.1).toFixed(1);
  $("start").value = 0;
  showStart();
  $("ask-model").hidden = true;
  playFrom(file);
  offerQuestions(["What can be heard here?", "Where does the sound come from, and how far away is it?"]);
  say(`${file.name} is ready. Ask the model about it.`);
});

const showStart = () => { $("start-out").textContent = (+$("start").value).toFixed(1); };

/* ---- the whole ---- */

function show(mode) {
  if (mode !== state.mode) forgetScene();
  if (mode !== "recording") { state.recording = null; $("recording").hidden = true; $("notes").replaceChildren(); }
  state.mode = mode;
  $("work").dataset.mode = mode;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const mine = tab.id === `tab-${mode}`;
    tab.setAttribute("aria-selected", mine);
    tab.tabIndex = mine ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !mine;
  }
  if (mode === "place") showSources(); else drawPlan();
}

function connect() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  tabs.forEach((tab, number) => {
    tab.addEventListener("click", () => show(tab.id.slice(4)));
    tab.addEventListener("keydown", (event) => {
      const turn = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!turn) return;
      const next = tabs[(number + turn + tabs.length) % tabs.length];
      next.focus();
      show(next.id.slice(4));
    });
  });
  for (const select of document.querySelectorAll("[data-hall]")) {
    select.append(...state.about.halls.map((hall, number) => make("option", hall.name, { value: number })));
    select.addEventListener("change", () => {
      state.hall = +select.value;
      for (const other of document.querySelectorAll("[data-hall]")) other.value = select.value;
      forgetScene();
      showSources();
    });
  }
  $("form-draw").addEventListener("submit", (event) => { event.preventDefault(); drawScene(); });
  $("form-place").addEventListener("submit", (event) => { event.preventDefault(); placeScene($("hear"), false); });
  $("hide").addEventListener("click", () => placeScene($("hide"), true));
  $("second").addEventListener("change", () => { state.count = $("second").checked ? 2 : 1; forgetScene(); showSources(); });
  $("form-guess").addEventListener("submit", (event) => { event.preventDefault(); reveal(event.submitter, "error-guess", readGuess()); });
  $("form-guess").addEventListener("input", () => { showDistance(); drawPlan(); });
  $("ask-model").addEventListener("click", () => reveal($("ask-model"), "error-place", null));
  $("again").addEventListener("click", () => { if (state.mode === "guess") drawScene(); else { forgetScene(); showSources(); } });
  $("form-ask").addEventListener("submit", (event) => { event.preventDefault(); askModel(event.submitter); });
  $("file").addEventListener("change", upload);
  $("start").addEventListener("input", showStart);
  $("repeat").addEventListener("change", () => { $("player").loop = $("repeat").checked; });
  $("reset").addEventListener("click", async () => { showScore((await send("reset")).match); say("The score is back at nought."); });
  $("plan").addEventListener("pointerdown", (event) => {
    if (!state.scene?.hidden) return;
    const [x, z] = onPlan(event), form = $("form-guess");
    form.elements.side.value = x >= 0 ? "right" : "left";
    form.elements.depth.value = z <= 0 ? "front" : "behind";
    $("distance").value = step(Math.max(Math.hypot(x, z), 0.5));
    showDistance();
    drawPlan();
  });
}

async function start() {
  state.about = await (await fetch("about")).json();
  state.sources.forEach((source, number) => { source.label = state.about.labels[(3 + 12 * number) % state.about.labels.length]; });
  $("distance").max = state.about.farthest;
  $("what").append(make("option", "choose …", { value: "" }));
  labelSelect($("what"));
  $("upload-hint").textContent = `Two channels, left and right: WAV, FLAC or OGG, up to ${state.about.max_seconds} seconds and ${state.about.max_upload >> 20} MB. It stays on this machine.`;
  drawRings();
  buildSources();
  connect();
  showScore(state.about.match);
  showSources();
  show("guess");
}

start();
