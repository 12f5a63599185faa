//! Wire messages between the agent and its clients, and a blocking client.
