"""ttrpc for the control plane: a pure state machine, asyncio shells around it, and the messages of the services."""
