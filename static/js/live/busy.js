// Whether a reader is busy in a part of the page, which must not be replaced then.
import { $ } from "../dom.js";

export function isBusy(region) {
  const selection = getSelection();
  const selected = !selection.isCollapsed && region.contains(selection.anchorNode);
  return selected || region.contains(document.activeElement) || $(":popover-open", region) !== null;
}
