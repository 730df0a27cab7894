"""The contract between server and agents: messages, tensor codec and limits."""
