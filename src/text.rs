//! What peers send, made safe to show.
