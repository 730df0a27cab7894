// Entry module of every page: the behaviour of the shell. Pages with charts load a module of their own beside it.
import "./shell.js";
import "./dialogs.js";
import "./keys.js";
import "./palette.js";
import "./times.js";
import "./live/regions.js";
import "./facets.js";
