"""How frames travel: one ordered channel of text frames, real (WebSocket) and in memory."""
