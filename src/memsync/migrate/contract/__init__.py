"""Phase contract: the gates, then the old places and user_id go."""
