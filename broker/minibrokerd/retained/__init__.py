"""The files of retained logs: segments of frames, what is deleted of them, and who reads them together."""
