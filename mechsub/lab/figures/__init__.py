"""Figures of studies: their kinds, their colours, their export."""
