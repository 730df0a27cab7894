// Whether a reader is busy in a part of the page, which must not be replaced then.
import { $ } from "../dom.js";

/** What a pointer is held down on. A click on what is replaced between press and release would go nowhere. */
let pressed = null;
addEventListener("pointerdown", (event) => { pressed = event.target; }, true);
for (const released of ["pointerup", "pointercancel"]) {
  addEventListener(released, () => setTimeout(() => { pressed = null; }), true); // the click follows the release
}

export function isBusy(region) {
  const selection = getSelection();
  const selected = !selection.isCollapsed && region.contains(selection.anchorNode);
  return selected || region.contains(pressed) || region.contains(document.activeElement) || $(":popover-open", region) !== null;
}
