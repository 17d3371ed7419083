"""The command line, one file a verb that has much to say."""
