"""Discrete things made trainable: confusion matrices, orders, …"""
