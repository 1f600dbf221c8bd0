"""Neural machine translation on Keras: the translation toolkit is to come here."""
