// Redoc shows its maker's logo, from the maker's site. No page of ours asks another site for anything: such a picture stays empty.
const { get, set } = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, "src");

const isElsewhere = (address) => /^https?:/.test(address) && new URL(address).origin !== location.origin;

Object.defineProperty(HTMLImageElement.prototype, "src", {
  get,
  set(address) {
    if (!isElsewhere(address)) set.call(this, address);
  },
});
HTMLImageElement.prototype.setAttribute = function (name, value) {
  if (name !== "src" || !isElsewhere(value)) Element.prototype.setAttribute.call(this, name, value);
};
