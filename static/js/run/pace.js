/** `work`, one at a time: `now()`, or `soon()`, which is at most once in `ms`. What is wanted meanwhile is done when that is over; a hidden tab asks for nothing. */
export function onceQuiet(work, ms) {
  let [busy, again, last, timer] = [false, false, 0, 0];
  async function now() {
    clearTimeout(timer);
    timer = 0;
    again = busy;
    if (busy) return;
    busy = true;
    last = Date.now();
    await work();
    busy = false;
    if (again) now();
  }
  function soon() {
    timer ||= setTimeout(() => {
      timer = 0;
      if (document.hidden) document.addEventListener("visibilitychange", soon, { once: true });
      else now();
    }, Math.max(0, last + ms - Date.now()));
  }
  return { now, soon };
}
