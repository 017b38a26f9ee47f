"""The heart: phases, the steps of a start and their undoing, the store. It knows the seams of `ports`, no cloud."""
