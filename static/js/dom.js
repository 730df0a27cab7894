// Small helpers shared by every module.
export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

const ENTITIES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
/** Everything that came from a person or an agent goes through this before it becomes HTML. */
export const esc = (text) => String(text).replace(/[&<>"']/g, (c) => ENTITIES[c]);

const sprite = document.documentElement.dataset.icons;
export const icon = (name, cls = "") =>
  `<svg class="i ${cls}" aria-hidden="true"><use href="${sprite}#${name}"/></svg>`;

/** A client's colour and shape, by its order of enrolment: the same on every page and in every chart. */
export const keyClass = (number) => ({ hue: ((number - 1) % 6) + 1, shape: Math.floor((number - 1) / 6) % 4 });
export const who = ({ name, number }) => {
  const { hue, shape } = keyClass(number);
  return `<span class="who"><span class="key k${hue}" data-s="${shape}"></span><span class="t" title="${esc(name)}">${esc(name)}</span></span>`;
};

/** `work` when the page has nothing else to do, and soon in any case. */
export const whenIdle = (work) => (window.requestIdleCallback ? requestIdleCallback(work, { timeout: 1000 }) : setTimeout(work, 200));

/** Set text only where it differs, so that a selection in the page survives an update. */
export function setText(element, text) {
  if (element && element.textContent !== text) element.textContent = text;
}

export function setHtml(element, html) {
  if (element && element.dataset.html !== html) {
    element.innerHTML = html;
    element.dataset.html = html;
  }
}

export function press(buttons, pressed) {
  buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === pressed)));
}

/** Put view state in the address, without a history entry for each change. */
export function setQuery(values) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value === null || value === "") query.delete(name);
    else query.set(name, value);
  }
  history.replaceState(history.state, "", (query.size ? `?${query}` : location.pathname) + location.hash);
}

export function toast(text, name = "check") {
  const item = document.createElement("div");
  item.innerHTML = `${icon(name)}<span>${esc(text)}</span>`;
  $(".toasts").append(item);
  setTimeout(() => item.remove(), 4000);
}

/** Say it to screen readers only; used for few things: round done, run ended, connection lost and back. */
export function announce(text) {
  setText($("#announcer"), text);
}

export const isTyping = (event) =>
  Boolean(event.target.closest?.("input:not([type=range], [type=checkbox], [type=radio]), textarea, select, [contenteditable]"));
