"""Live streams over the Lab Streaming Layer: discovery, inlets, readers."""
