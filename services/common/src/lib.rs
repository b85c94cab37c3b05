//! What every service of shoal does alike.
