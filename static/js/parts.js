// A strategy is made of parts: a select chooses one, and only the chosen one's settings are shown. Without this module all are.
import { $$ } from "./dom.js";

const form = document.getElementById("strategy-form");

function show() {
  const chosen = new Set($$("select[data-part]", form).map((select) => `${select.name}=${select.value}`));
  for (const field of $$("[data-option]", form)) field.hidden = !chosen.has(field.dataset.option);
}

form.addEventListener("change", show);
show();
