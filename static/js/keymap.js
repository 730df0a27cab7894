// The single-key shortcuts: the one place that says which there are. `onShortcut` hands on no other key, and the sheet is drawn
// from this list: a key that isn't listed does nothing, so the sheet can't leave one out.
export const KEYMAP = {
  Everywhere: [["Ctrl K", "Search and commands"], ["g", "Go to a page, then its letter"], ["n", "New run or query, where the page offers one"],
    ["/", "Filter the list"], ["?", "This sheet"], ["Esc", "Close"]],
  "In lists": [["j", "Next row"], ["k", "Row before"], ["Enter", "Open the row"], ["x", "Tick a run"], ["c", "Compare the runs that are ticked"]],
  "On a run": [[" ", "Pause or resume live updates"], ["l", "Log scale"], ["f", "Follow the log"], ["[", "The model of the round before"],
    ["]", "The model of the next round"]],
};

const LISTED = new Set(Object.values(KEYMAP).flat().map(([key]) => key));
export const isListed = (key) => LISTED.has(key);

/** As people read it: "Space", "G", "Ctrl K". */
export const spelled = (key) => (key === " " ? ["Space"] : key.length === 1 ? [key.toUpperCase()] : key.split(" "));
