"use strict";

// What a file is called and what a person types is text, never markup: only textContent and attributes are set.
const form = document.getElementById("search");
const sentence = document.getElementById("sentence");
const state = document.getElementById("state");
const list = document.getElementById("hits");
const card = document.getElementById("card");
const MOMENTS = 3;
const HITS = 12;

let latest = 0; // the search that is shown; answers to earlier ones come too late

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = sentence.value.trim();
  if (!text) return;
  history.replaceState(null, "", "?q=" + encodeURIComponent(text));
  search(text);
});

const asked = new URLSearchParams(location.search).get("q");
if (asked) {
  sentence.value = asked;
  search(asked);
}

async function search(text) {
  const mine = ++latest;
  say("searching …");
  try {
    const answer = await ask("v1/search", { text, k: HITS, moments: MOMENTS });
    if (mine !== latest) return;
    const hits = answer.results[0].hits;
    clear();
    for (const hit of hits) list.append(cardOf(hit));
    say(hits.length ? "" : "nothing found");
    playFirst();
  } catch (error) {
    if (mine !== latest) return;
    clear();
    say(error.message, true);
  }
}

async function ask(address, body) {
  const sent = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let response;
  try {
    response = await fetch(address, sent);
  } catch {
    throw new Error("the service does not answer; is it running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error || `the service answered with status ${response.status}`);
  return answer;
}

function say(text, isError = false) {
  state.textContent = text;
  state.classList.toggle("error", isError);
}

function clear() {
  for (const video of list.querySelectorAll("video")) stop(video);
  list.replaceChildren();
}

// A player that is only dropped keeps its connection, and a browser has six of them.
function stop(video) {
  seen.unobserve(video);
  video.removeAttribute("src");
  video.load();
}

function cardOf(hit) {
  const item = card.content.firstElementChild.cloneNode(true);
  const video = item.querySelector("video");
  item.querySelector(".name").textContent = hit.name;
  item.querySelector(".span").textContent = spanOf(hit);
  item.querySelector(".score").textContent = hit.score.toFixed(3);
  show(video, hit);
  video.addEventListener("error", () => showStill(item, video, hit));
  for (const type of ["pointerenter", "focusin"]) video.addEventListener(type, () => play(video));
  for (const other of hit.others) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = spanOf(other);
    button.title = "score " + other.score.toFixed(3);
    button.addEventListener("click", () => {
      show(video, other);
      video.src = video.dataset.source;
      play(video);
    });
    item.querySelector(".others").append(button);
  }
  return item;
}

// A media fragment: the player begins at the moment and stops after it. The file is asked for when it comes into view.
function show(video, moment) {
  const span = (moment.start ?? 0) + (moment.end === null ? "" : "," + moment.end);
  video.dataset.source = `v1/media/${moment.id}#t=${span}`;
  video.setAttribute("aria-label", "the clip, " + spanOf(moment));
  seen.observe(video);
}

const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting || target.hasAttribute("src")) continue;
    target.src = target.dataset.source;
    seen.unobserve(target);
  }
});

async function showStill(item, video, hit) {
  if (!video.getAttribute("src") || !video.isConnected) return; // it was taken away on purpose
  const trouble = item.querySelector(".trouble");
  const address = `v1/still/${hit.id}`;
  const response = await fetch(address).catch(() => null);
  if (response && response.ok) {
    const picture = document.createElement("img");
    picture.src = address;
    picture.alt = "a picture of the moment";
    video.replaceWith(picture);
    trouble.textContent = "This browser cannot play the file; a picture of the moment stands for it.";
    return;
  }
  const answer = response ? await response.json().catch(() => ({})) : {};
  trouble.textContent = answer.error || "The clip cannot be shown.";
}

// Nothing moves by itself for those who asked for that.
function playFirst() {
  const first = list.querySelector("video");
  if (first && !matchMedia("(prefers-reduced-motion: reduce)").matches) play(first);
}

function play(video) {
  video.autoplay = true;
  video.play().catch(() => {}); // not allowed, not loaded yet or not playable: the controls are there
}

function spanOf(moment) {
  if (moment.start === null && moment.end === null) return "whole clip";
  return clock(moment.start ?? 0) + " – " + (moment.end === null ? "end" : clock(moment.end));
}

function clock(seconds) {
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  if (!parts[0]) parts.shift();
  const [first, ...rest] = parts;
  const tenth = Math.floor((seconds - whole) * 10);
  return [first, ...rest.map((part) => String(part).padStart(2, "0"))].join(":") + (tenth ? "." + tenth : "");
}
