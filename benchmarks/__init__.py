"""What the project's figures of speed and loss come from; each module is a command of its own."""

import os

# As the command line does, and before torch is imported: waiting threads that spin take the cores from all others.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
