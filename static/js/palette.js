// The command palette (Ctrl K): pages, actions of this page, and what the server finds. A combobox with a list, by the ARIA
// pattern: the focus stays in the field, `aria-activedescendant` says which option Enter takes.
import { $, $$, esc, icon } from "./dom.js";

const WAIT_MS = 120;
const dialog = $("#palette");
const opener = $("[data-palette]");
let input, box, status, hits = [], at = 0, found = [], asked = "", timer = 0, request = null;

const text = (element) => ($("[data-label]", element) ?? element).textContent.trim().replace(/\s+/g, " ");

const pages = () => $$(".side a[data-go]").map((link) => (
  { group: "Go to", text: text(link), icon: link.dataset.icon, keys: ["G", link.dataset.go.toUpperCase()], run: () => link.click() }));

/** What the page's own head offers: its buttons, and the entries of the menus beside them. */
function acts() {
  const offered = $$("main .page-head .actions :is(a, button):not([popovertarget], [data-close], :disabled)");
  return offered.filter((one) => text(one) && (one.checkVisibility() || one.closest("[popover]"))).map((one) => (
    { group: "On this page", text: text(one), icon: "right", run: () => one.click() }));
}

const general = () => [
  { group: "FedUI", text: "Switch theme", icon: "theme", run: () => $("[data-theme-toggle]").click() },
  { group: "FedUI", text: "Keyboard shortcuts", icon: "help", keys: ["?"], run: () => $("[data-shortcuts]").click() },
  { group: "FedUI", text: "Save this view", icon: "star", run: () => $("[data-dialog=save-view]")?.click() },
].filter((one) => one.text !== "Save this view" || $("[data-dialog=save-view]"));

function matching(items, words) {
  return items.filter((item) => words.every((word) => `${item.group} ${item.text}`.toLowerCase().includes(word)));
}

function draw() {
  const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
  const local = matching([...acts(), ...pages()], words);
  const remote = found.map((hit) => ({ ...hit, run: () => location.assign(hit.address) }));
  hits = [...local.filter((hit) => hit.group === "On this page"), ...remote, ...local.filter((hit) => hit.group === "Go to"), ...matching(general(), words)];
  at = Math.min(at, Math.max(0, hits.length - 1));
  let group = "", html = "";
  hits.forEach((hit, index) => {
    if (hit.group !== group) html += `${group ? "</div>" : ""}<div role="group" aria-labelledby="pg${index}"><div class="head" id="pg${index}">${esc(group = hit.group)}</div>`;
    const note = hit.keys ? hit.keys.map((key) => `<kbd>${esc(key)}</kbd>`).join(" ") : esc(hit.note ?? "");
    html += `<div role="option" id="po${index}" data-index="${index}">${icon(hit.icon)}<span class="ell" dir="auto">${esc(hit.text)}</span><small>${note}</small></div>`;
  });
  box.innerHTML = html ? `${html}</div>` : "";
  $("[data-none]", dialog).hidden = hits.length > 0;
  status.textContent = `${hits.length} result${hits.length === 1 ? "" : "s"}`;
  mark();
}

function mark() {
  $$("[role=option]", box).forEach((option, index) => option.setAttribute("aria-selected", String(index === at)));
  const current = $(`#po${at}`, box);
  if (current) input.setAttribute("aria-activedescendant", current.id);
  else input.removeAttribute("aria-activedescendant");
  current?.scrollIntoView({ block: "nearest" });
}

async function ask() {
  request?.abort();
  request = new AbortController();
  const wanted = input.value.trim();
  try {
    const answer = await fetch(`${opener.href}?q=${encodeURIComponent(wanted)}`, { headers: { Accept: "application/json" }, signal: request.signal });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    found = (await answer.json()).hits;
    $("[data-failed]", dialog).hidden = true;
  } catch (error) {
    if (error.name === "AbortError") return;
    found = [];
    $("[data-failed]", dialog).hidden = false;
  }
  asked = wanted;
  if (dialog.open) draw();
}

function typed() {
  at = 0;
  found = asked && input.value.trim().startsWith(asked) ? found : [];
  draw();
  clearTimeout(timer);
  timer = setTimeout(ask, WAIT_MS);
}

function take(index) {
  const hit = hits[index];
  if (!hit) return;
  dialog.close();
  hit.run();
}

const MOVES = { ArrowDown: (n) => (at + 1) % n, ArrowUp: (n) => (at + n - 1) % n, PageDown: (n) => Math.min(n - 1, at + 8), PageUp: () => Math.max(0, at - 8) };

function pressed(event) {
  if (event.isComposing) return;
  if (event.key in MOVES && hits.length) {
    event.preventDefault();
    at = MOVES[event.key](hits.length);
    mark();
  } else if (event.key === "Enter") {
    event.preventDefault();
    take(at);
  }
}

export function openPalette() {
  if (dialog.open) return;
  input.value = "";
  [at, found, asked] = [0, [], ""];
  dialog.showModal();
  input.focus();
  draw();
  ask();
}

if (dialog && opener) {
  input = $("input", dialog);
  box = $("[role=listbox]", dialog);
  status = $("[role=status]", dialog);
  input.addEventListener("input", typed);
  input.addEventListener("keydown", pressed);
  box.addEventListener("click", ({ target }) => {
    const option = target.closest("[role=option]");
    if (option) take(Number(option.dataset.index));
  });
  dialog.addEventListener("close", () => { box.innerHTML = ""; });
  opener.addEventListener("click", (event) => {
    event.preventDefault();
    openPalette();
  });
  addEventListener("keydown", (event) => {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || event.shiftKey || event.key.toLowerCase() !== "k") return;
    event.preventDefault();
    if (dialog.open) dialog.close();
    else if (!$("dialog[open]")) openPalette();
  });
}
