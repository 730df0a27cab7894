// Swagger UI has a dark theme of its own, and shows no switch for it here: it follows that of the other pages.
const system = matchMedia("(prefers-color-scheme: dark)");

function follow() {
  const { theme } = document.documentElement.dataset;
  document.documentElement.classList.toggle("dark-mode", theme === "dark" || (theme === "auto" && system.matches));
}

system.addEventListener("change", follow);
follow();
