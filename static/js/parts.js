// A strategy is made of parts: a select chooses one, and only the chosen one's settings are shown.
import { $$ } from "./dom.js";

addEventListener("change", ({ target }) => {
  if (!target.matches("select[data-part]")) return;
  const settings = $$("[data-option]", target.form).filter((field) => field.dataset.option.startsWith(`${target.name}=`));
  for (const field of settings) field.hidden = field.dataset.option !== `${target.name}=${target.value}`;
});
