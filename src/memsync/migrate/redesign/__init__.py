"""Phase redesign: the new tables of the settings, beside the old places and in step with them."""
