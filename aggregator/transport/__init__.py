"""gRPC: servicers translate between messages and the hub, and decide nothing."""
