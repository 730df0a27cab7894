// A classic script in <head>, run before first paint so that the page never flashes in the wrong theme.
document.documentElement.dataset.theme = localStorage.getItem("fedui.theme") ?? "auto";
