// Theme, navigation on small screens, popover menus, notices.
import { $, $$, toast } from "./dom.js";

const root = document.documentElement;
const NEXT_THEME = { auto: "light", light: "dark", dark: "auto" };

function switchTheme() {
  const next = NEXT_THEME[root.dataset.theme] ?? "auto";
  root.dataset.theme = next;
  localStorage.setItem("fedui.theme", next);
  dispatchEvent(new Event("themechange"));
  toast(`Theme: ${next === "auto" ? "same as system" : next}`, "theme");
}
$$("[data-theme-toggle]").forEach((button) => button.addEventListener("click", switchTheme));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dispatchEvent(new Event("themechange")));

const burger = $(".burger");
function openNavigation(open) {
  document.body.classList.toggle("nav-open", open);
  burger?.setAttribute("aria-expanded", String(open));
}
burger?.addEventListener("click", () => openNavigation(!document.body.classList.contains("nav-open")));
addEventListener("click", (event) => {
  if (document.body.classList.contains("nav-open") && !event.target.closest(".side, .burger")) openNavigation(false);
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") openNavigation(false);
});

/** Native popovers open in the middle of the window; a menu belongs under its button. */
function placeMenu(event) {
  const menu = event.target;
  if (event.newState !== "open" || !menu.matches?.(".menu[popover]")) return;
  const button = $(`[popovertarget="${menu.id}"]`).getBoundingClientRect();
  const [width, height] = [menu.offsetWidth, menu.offsetHeight];
  const left = menu.dataset.align === "end" ? button.right - width : button.left;
  const above = button.bottom + height + 8 > innerHeight && button.top > height;
  menu.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
  menu.style.top = `${above ? button.top - height - 4 : button.bottom + 4}px`;
}
document.addEventListener("toggle", placeMenu, true);

$$(".toasts [data-message]").forEach((message) => setTimeout(() => message.remove(), 8000));
