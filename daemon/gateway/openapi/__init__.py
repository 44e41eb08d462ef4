"""The OpenAPI document: `endpoints` lists what is served with its types, and `document` is made of that."""
