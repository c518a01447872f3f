"use strict";

const part = (id) => document.getElementById(id);
const here = location.pathname; // with the token
let session; // what the server told at the start
let place = 0; // of the task that is shown
let open = 0; // of the rubric that digits answer
let waiting = 0; // answers on their way to the disk
const waitingOf = {}; // the same, by task
let stored; // where each task stands on the disk
let queue = Promise.resolve(); // they go one after the other
let isStuck = false;

const row = () => session.rows[place];
const graded = (name = row().task) => session.graded[name];
const given = (rubric) => graded().grades[rubric.name];
const isFinal = () => graded().verdict !== undefined;

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

async function ask(name, body) {
  const request = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  let reply;
  try {
    reply = await fetch(here + name, request);
  } catch {
    throw new Error("adapt review has ended. What was graded until then is kept; start it again to go on.");
  }
  const found = name === "icon" ? {} : await reply.json();
  if (!reply.ok) throw new Error(found.error);
  return found;
}

/* Put a request behind those that are under way, and show where its task stands after it. */
function send(name, body, after = () => {}) {
  if (isStuck) return;
  waiting += 1;
  waitingOf[body.task] = (waitingOf[body.task] || 0) + 1;
  tellSaved();
  queue = queue.then(async () => {
    try {
      const state = await ask(name, body);
      if (state.task !== undefined) {
        stored[state.task] = state;
        // An answer that is still under way is shown already: only the last word is taken over.
        if ((waitingOf[state.task] || 0) <= 1) session.graded[state.task] = structuredClone(state);
      }
      after(state);
      tellTrouble("");
    } catch (error) {
      session.graded = structuredClone(stored); // what is shown is what is on the disk
      draw();
      tellTrouble(error.message);
      isStuck = !(await isThere());
    }
    waiting -= 1;
    waitingOf[body.task] -= 1;
    draw();
  });
}

async function isThere() {
  try {
    await ask("icon");
    return true;
  } catch {
    return false;
  }
}

/* What the person asks for */

function say(rubric, answer) {
  if (isFinal()) return tellTrouble("Its verdict was shown, so its grades are final.");
  const state = graded();
  state.grades[rubric.name] = answer.value;
  state.is_skipped = false;
  state.is_done = session.rubrics.every((other) => state.grades[other.name] !== undefined);
  const left = session.rubrics.findIndex((other) => state.grades[other.name] === undefined);
  open = left < 0 ? session.rubrics.indexOf(rubric) : left;
  send("say", { task: row().task, said: rubric.name, value: answer.value });
  draw();
}

function skip() {
  if (isFinal()) return;
  const state = graded();
  state.is_skipped = !state.is_skipped;
  send("say", { task: row().task, said: "skip", value: state.is_skipped });
  if (state.is_skipped) {
    state.is_done = true;
    toNext();
  } else draw();
}

function undo() {
  send("undo", {}, (state) => show(session.rows.findIndex((other) => other.task === state.task)));
}

function reveal() {
  send("reveal", { task: row().task });
}

function finish() {
  send("finish", {}, () => {
    isStuck = true;
    part("main").hidden = true;
    part("saved").textContent = "";
    part("place").textContent = "Finished. Your grades are kept; adapt report shows them.";
  });
}

function show(number) {
  place = Math.min(Math.max(number, 0), session.rows.length - 1);
  const left = session.rubrics.findIndex((rubric) => given(rubric) === undefined);
  open = left < 0 ? 0 : left;
  fill();
  draw();
}

/* Go to the next task that is not graded, round the end if need be; else one further. */
function toNext() {
  const num = session.rows.length;
  for (let step = 1; step < num; step += 1) {
    const number = (place + step) % num;
    if (!graded(session.rows[number].task).is_done) return show(number);
  }
  return show(place + 1);
}

function zoom() {
  part("picture").classList.toggle("full");
}

/* What is shown */

function fill() {
  const task = row();
  for (const name of ["caption", "instruction", "informative", "precise", "joined"]) {
    part(name).textContent = task[name];
    part(name).scrollTop = 0;
  }
  part("joined").hidden = part("joined-title").hidden = !task.joined;
  part("picture").classList.remove("full");
  part("picture").hidden = !task.has_image;
  part("no-image").hidden = task.has_image;
  if (task.has_image) part("image").src = `${here}picture/${place}`;
  else part("image").removeAttribute("src");
  const after = session.rows[place + 1];
  if (after && after.has_image) new Image().src = `${here}picture/${place + 1}`;
  window.scrollTo(0, 0);
}

function draw() {
  const rows = session.rows;
  const num = rows.filter((other) => graded(other.task).is_done).length;
  part("place").textContent = `task ${place + 1} of ${rows.length}, ${num} graded`;
  part("done").style.width = `${(100 * num) / rows.length}%`;
  part("bar").setAttribute("aria-valuemax", rows.length);
  part("bar").setAttribute("aria-valuenow", num);
  const focus = document.activeElement && document.activeElement.id;
  part("rubrics").replaceChildren(...session.rubrics.map(drawRubric));
  if (focus && part(focus)) part(focus).focus({ preventScroll: true });
  const state = graded();
  part("back").disabled = place === 0;
  part("next").classList.toggle("ready", state.is_done);
  part("reveal").disabled = !state.is_done || state.is_skipped || isFinal();
  part("skip").disabled = isFinal();
  part("skip").setAttribute("aria-pressed", state.is_skipped);
  drawVerdict(state);
  tellSaved();
}

function drawRubric(rubric, number) {
  const box = element("div", "", "rubric");
  const chosen = rubric.answers.find((answer) => answer.value === given(rubric));
  box.classList.toggle("given", chosen !== undefined);
  box.classList.toggle("open", number === open);
  const head = element("button");
  head.type = "button";
  head.id = `rubric-${number}`;
  head.setAttribute("aria-expanded", number === open);
  head.append(element("b", rubric.name), element("span", chosen ? answerText(rubric, chosen) : ""));
  head.onclick = () => { open = number; draw(); };
  box.append(head);
  if (number !== open) return box;
  const answers = element("div", "", rubric.answers.length > 9 ? "answers many" : "answers");
  answers.append(...rubric.answers.map((answer) => drawAnswer(rubric, answer, answer === chosen)));
  box.append(element("p", rubric.question, "asked"), answers);
  return box;
}

function drawAnswer(rubric, answer, isChosen) {
  const button = element("button");
  button.type = "button";
  button.id = `answer-${rubric.name}-${answer.key}`;
  button.setAttribute("aria-pressed", isChosen);
  button.disabled = isFinal() && !isChosen;
  button.append(element("kbd", answer.key), element("span", answer.text));
  button.onclick = () => say(rubric, answer);
  return button;
}

function answerText(rubric, answer) {
  return rubric.is_scale ? `${answer.value}` : answer.text;
}

function drawVerdict(state) {
  const shown = part("verdict");
  shown.hidden = !state.verdict && !state.is_skipped;
  shown.className = state.verdict ? state.verdict.set : "";
  if (state.is_skipped) shown.textContent = "Skipped: it counts nowhere. Press s again, or grade it, to take it back.";
  if (!state.verdict) return;
  const { set, filter, reason, detail } = state.verdict;
  const why = set === "dropped" ? ` by ${filter}: ${reason}${detail ? ` (${detail})` : ""}` : " by every filter";
  shown.textContent = `${set}${why}`;
}

function tellSaved() {
  part("saved").textContent = isStuck ? "" : waiting ? "saving" : "saved";
}

function tellTrouble(text) {
  part("trouble").hidden = !text;
  part("trouble").textContent = text;
}

/* Keys */

const MOVES = {
  ArrowLeft: () => show(place - 1),
  ArrowRight: () => show(place + 1),
  ArrowUp: () => { open = Math.max(open - 1, 0); draw(); },
  ArrowDown: () => { open = Math.min(open + 1, session.rubrics.length - 1); draw(); },
  Enter: toNext,
  u: undo,
  s: skip,
  v: () => { if (!part("reveal").disabled) reveal(); },
  z: zoom,
  "?": () => part("help").showModal(),
};

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || part("help").open || isStuck) return;
  const isScrolling = event.key.startsWith("Arrow") && event.target.classList.contains("text");
  const isOnButton = event.key === "Enter" && event.target.tagName === "BUTTON" && event.target.id !== "next";
  if (isScrolling || (isOnButton && event.target.matches(":focus-visible"))) return;
  const digits = session.rubrics[open].answers.find((answer) => answer.key === event.key);
  const first = session.rubrics.find((rubric) => rubric.answers.some((answer) => answer.key === event.key));
  if (digits) say(session.rubrics[open], digits);
  else if (first && !/\d/.test(event.key)) say(first, first.answers.find((answer) => answer.key === event.key));
  else if (MOVES[event.key]) MOVES[event.key]();
  else return;
  event.preventDefault();
}

async function start() {
  try {
    session = await ask("start");
    stored = structuredClone(session.graded);
  } catch (error) {
    tellTrouble(error.message);
    return;
  }
  document.title = `review: ${session.recipe}`;
  part("recipe").textContent = session.recipe;
  part("main").hidden = false;
  document.addEventListener("keydown", press);
  part("back").onclick = MOVES.ArrowLeft;
  part("next").onclick = toNext;
  part("undo").onclick = undo;
  part("skip").onclick = skip;
  part("reveal").onclick = reveal;
  part("finish").onclick = finish;
  part("picture").onclick = zoom;
  part("help-button").onclick = MOVES["?"];
  part("image").onerror = () => { part("picture").hidden = true; part("no-image").hidden = false; };
  part("image").onload = () => part("image").classList.toggle("small", part("image").naturalWidth < 160);
  const first = session.rows.findIndex((other) => !graded(other.task).is_done);
  show(first < 0 ? 0 : first);
}

start();
