"""Runtime: durable sessions. A turn is decided (pure), performed (ports), recorded (the log), and again until it rests."""
