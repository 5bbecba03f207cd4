"""Which team should answer a support ticket?"""

from tickets.model import TEAMS, TicketClassifier, encoder_config

__all__ = ["TEAMS", "TicketClassifier", "encoder_config"]
