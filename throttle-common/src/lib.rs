#![no_std]
//! Words.
