// The chip of a facet says what is chosen in its menu.
import { $, $$, setText } from "./dom.js";

document.addEventListener("change", ({ target }) => {
  const menu = target.closest?.("[data-facet]");
  if (!menu) return;
  const chosen = $$("input:checked", menu).map((box) => box.nextElementSibling.textContent);
  const chip = $(`[popovertarget="${menu.id}"]`);
  chip.classList.toggle("on", chosen.length > 0);
  setText($("b", chip), chosen.join(", "));
});
